"""Processes that run a Python program, and start within milliseconds.

``python -m tests.forks`` imports the packages and their drivers once, which takes longer than most
commands. For each line ``start`` with a program it then forks a process, and prints its id. The
process becomes what ``python -m MODULE`` would be: the module is its main program, and it has a
folder, an environment, arguments and standard streams of its own. For each line ``poll`` with the
id of a process it prints the exit status, or ``null`` while the process runs. For each line
``import`` with names of modules it imports these, too.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POLL_SEC = 0.01


class ForkServer:
    """The process from which others are forked."""

    def __init__(self) -> None:
        self._one_question = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *question: Any) -> Any:
        """Send a question and return its answer. Any thread may ask."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_question:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            self._process.kill()


@functools.cache
def fork_server() -> ForkServer:
    """Return the server of this test process, which ends with it."""
    server = ForkServer()
    atexit.register(server.close)
    return server


class Fork:
    """A process that runs a module, with the methods of ``subprocess.Popen`` that tests use.

    With ``strict``, warnings are errors, as with ``python -W error``.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        strict: bool = False,
    ) -> None:
        self._status: int | None = None
        for output in (stdout, stderr):
            output.touch()
        program = {
            "module": module,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "outputs": [str(stdout), str(stderr)],
            "strict": strict,
        }
        self.pid: int = fork_server().ask("start", program)

    def poll(self) -> int | None:
        if self._status is None:
            self._status = fork_server().ask("poll", self.pid)
        return self._status

    def wait(self, timeout: float) -> int:
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} has not ended within {timeout:g} s")
            time.sleep(POLL_SEC)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_fork(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    timeout: float,
    strict: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, and return its exit status and what it printed."""
    with TemporaryDirectory(prefix="flowkit-fork-") as outputs:
        stdout, stderr = Path(outputs, "out"), Path(outputs, "err")
        fork = Fork(
            module,
            arguments,
            folder=folder,
            environment=environment,
            stdout=stdout,
            stderr=stderr,
            strict=strict,
        )
        try:
            status = fork.wait(timeout)
        finally:
            fork.kill()
        printed = (stdout.read_text(encoding="utf-8"), stderr.read_text(encoding="utf-8"))
    return subprocess.CompletedProcess([module, *arguments], status, *printed)


# ---------------------------------------------------------------- in the server


def import_packages() -> None:
    from flowkit.cli import _app  # noqa: F401
    from flowkit.plugins import Plugins
    from flowkit_kafka import KafkaBus  # noqa: F401
    from flowkit_mongo import MongoStore  # noqa: F401
    from flowkit_sqlite import SqliteBus, SqliteStore  # noqa: F401

    Plugins()
    gc.collect()
    gc.freeze()


def next_program() -> dict[str, Any]:
    """Answer questions. Return in each forked process, with its program.

    Raises:
        SystemExit: there are no more questions.
    """
    for line in sys.stdin:
        match json.loads(line):
            case ["start", program]:
                pid = os.fork()
                if pid == 0:
                    return program
                answer: int | None = pid
            case ["import", modules]:
                for module in modules:
                    importlib.import_module(module)
                answer = None
            case ["poll", pid]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if ended else None
        print(json.dumps(answer), flush=True)
    raise SystemExit


def be(program: dict[str, Any]) -> None:
    """Run a program as the main one of this process."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(path, flags) for path in program["outputs"]]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the old one has read the questions
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    if program["strict"]:
        warnings.simplefilter("error")
    sys.path[0] = program["folder"]
    sys.argv[1:] = program["arguments"]
    runpy.run_module(program["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    import_packages()
    be(next_program())
