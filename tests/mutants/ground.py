"""Processes in which one module of the packages is changed.

If the change is in a function, the process is forked from one that has imported the packages, which
takes longer than most searches. The function gets its changed code, so all that refer to it call
the changed one. With any other change, a process begins without imports and takes the changed
module.
"""

import gc
import importlib
import importlib.util
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutants.places import Change

PRELOADED = [
    *("_pytest.pytester", "pytest_timeout", "xdist.plugin", "anyio.pytest_plugin"),
    *("_hypothesis_pytestplugin", "flowkit_testing.pytest_plugin"),
    *("tests.conftest", "tests.mutants.hunt", "tests.mutants.suite"),
]

ONE_POLL = threading.Lock()
"""A start also polls the processes of other threads. Of two that poll one process when it ends, the
second loses its exit status.
"""


class ChangedModule(SourceFileLoader):
    """Loads one module from another source text than that of its file."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        return self._text.encode() if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> dict[str, int]:
        """Raise ``OSError``, so that no compiled module is read or written."""
        raise OSError(f"{path} is not imported as it is")


class ChangedModuleFinder(MetaPathFinder):
    """Finds one module, whose source text is changed."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._change.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = ChangedModule(fullname, spec.origin, self._change.text)
        return spec


def change_functions(change: Change) -> None:
    """Replace the code of the functions of an imported module that are in its changed source.

    A function is known by its name and first line, so those below the change keep their code. That
    is the same, as a change is inside one function.
    """
    file = importlib.import_module(change.module).__file__
    assert file is not None
    changed = {_key(code): code for code in _codes(compile(change.text, file, "exec"))}
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == file:
            function.__code__ = changed.get(_key(function.__code__), function.__code__)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def run(
    program: str,
    arguments: Sequence[str],
    change: Change | None,
    *,
    output: Path,
    limit_sec: float,
) -> int | None:
    """Call ``main`` of the module ``program`` in a new process, and return its exit status.

    A process that does not end in time is killed. The process writes its output to a file.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    kind = ForkServerProcess if change is None or change.in_function else SpawnProcess
    process = kind(target=_main, args=(program, arguments, change, output))
    with ONE_POLL:
        process.start()
    ended = wait([process.sentinel], limit_sec)
    with ONE_POLL:
        if not ended:
            process.kill()
        process.join()
        status = process.exitcode
        process.close()
    return status


def _main(program: str, arguments: Sequence[str], change: Change | None, output: Path) -> None:
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if change is not None and change.in_function:
        change_functions(change)
    elif change is not None:
        sys.meta_path.insert(0, ChangedModuleFinder(change))
    sys.exit(importlib.import_module(program).main(*arguments))
