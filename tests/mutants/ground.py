"""Processes that import the packages with one module changed.

They are forked from a process that has imported pytest and other libraries, but nothing of this
repository. So a process has no old module, and does not wait for those imports.
"""

import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType

LIBRARIES = [
    *("pytest", "_pytest.pytester", "pytest_timeout", "xdist.plugin"),
    *("anyio.pytest_plugin", "coverage", "hypothesis", "_hypothesis_pytestplugin"),
    *("pydantic.main", "pymongo"),
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

    def __init__(self, path: Path, text: str) -> None:
        """``path`` is that of the module below a package's ``src``."""
        self._name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        self._text = text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == self._name else None
        if spec is not None and spec.origin is not None:
            spec.loader = ChangedModule(fullname, spec.origin, self._text)
        return spec


def run(
    program: str,
    arguments: Sequence[str],
    change: tuple[Path, str] | None,
    *,
    output: Path,
    limit_sec: float,
) -> int | None:
    """Call ``main`` of the module ``program`` in a new process, and return its exit status.

    The status is None if the process did not end in time. ``change`` is a module's path, below a
    package's ``src``, and its new source text. The process writes its output to a file.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(LIBRARIES)
    process = forks.Process(target=_main, args=(program, arguments, change, output))
    with ONE_POLL:
        process.start()
    wait([process.sentinel], limit_sec)
    with ONE_POLL:
        status = process.exitcode
        process.kill()
        process.join()
        process.close()
    return status


def _main(
    program: str, arguments: Sequence[str], change: tuple[Path, str] | None, output: Path
) -> None:
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    if change is not None:
        sys.meta_path.insert(0, ChangedModuleFinder(*change))
    sys.exit(importlib.import_module(program).main(*arguments))
