"""Server processes that do not outlive the process that started them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# The guard waits for the end of its standard input, which comes when the process that started it
# has ended in any way.
_GUARD = (
    'cat > /dev/null; kill -9 "$1" 2> /dev/null; sleep 0.2; rm -rf "$2"; rmdir "$(dirname "$2")" 2>'
    " /dev/null"
)


class Unavailable(Exception):
    """A server is not available on this machine; the message has the reason."""


TRIES = 3


def fetched(command: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that downloads something, with retries, and return the last result."""
    for pause_sec in range(5, 5 * TRIES, 5):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done
        time.sleep(pause_sec)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


class ServerProcess:
    """A server process, which is stopped by its process id.

    A small guard process runs beside it. If this Python process is killed, the guard kills the
    server and removes ``folder``, and the folder around it if that is empty.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``command`` in ``folder`` and append its output to ``log``.

        ``environment`` adds variables to those of this process.
        """
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(self.pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status, or the negative number of the signal that ended it; None while it runs."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], *, timeout: float = 60) -> None:
        """Wait until ``ready()`` is true.

        Raises:
            RuntimeError: the server ended, or ``timeout`` seconds passed; the message has the end
                of its log.
        """
        until = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise RuntimeError(
                    f"the server ended with status {self._process.returncode}:\n{self.log_tail()}"
                )
            if time.monotonic() > until:
                raise RuntimeError(
                    f"the server was not ready after {timeout:g} s:\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(
            self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def stop(self, *, timeout: float = 15) -> None:
        """Terminate the server, and kill it if it has not ended after ``timeout`` seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def kill(self) -> None:
        """Kill the process (``kill -9``), as a power cut would."""
        self._process.kill()
        self._end()

    def suspend(self) -> None:
        """Suspend the process: it keeps its connections open, but does not answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self) -> None:
        self._process.wait()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def cache_folder() -> Path:
    """Return the folder of downloaded servers, outside the repository and shared by checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "flowkit" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


DATA_VARIABLE = "FLOWKIT_TEST_DATA"
MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
"""Free bytes that all servers of a run may need."""


def keep_data_in_memory() -> None:
    """Let servers that are started from now on keep their data in memory, where there is room.

    A disk may take milliseconds for each commit, and the tests only kill processes: what a process
    has written survives that in memory, too.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault(DATA_VARIABLE, str(MEMORY))


def data_folder(prefix: str) -> Path:
    """Make a folder for the data of a server."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=os.environ.get(DATA_VARIABLE)))


def in_ci() -> bool:
    """Return whether a missing server is a failure rather than a reason to skip."""
    return os.environ.get("CI", "").lower() == "true"
