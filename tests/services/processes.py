"""Coordinators, workers and verbs as processes of the operating system."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import anyio.to_thread

from tests.forks import Fork, run_fork
from tests.services.clocks import shifted
from tests.services.support import Installation

ROOT = Path(__file__).parents[2]
RECORDING = ("--handlers", "tests.services.recording_handlers:HANDLERS")
PATIENCE_SEC = 90.0


class Process:
    """A coordinator or a worker, which logs into a file."""

    def __init__(self, process: subprocess.Popen[bytes] | Fork, *, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def logged(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def until(self, action: str) -> Self:
        """Wait until it has logged a text."""
        await until(
            lambda: (
                f'"action":"{action}"' in self.logged().replace('": "', '":"')
                or self._process.poll() is not None
            )
        )
        assert self._process.poll() is None, self.logged()
        return self

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    async def end(self) -> int:
        """Wait for its end and return its exit status."""
        return await anyio.to_thread.run_sync(self._process.wait, PATIENCE_SEC)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SEC)


def started(
    command: list[str], *, log: Path, environment: dict[str, str], folder: Path = ROOT
) -> Process:
    """Start another Python for a process."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return Process(process, log=log)


class Processes:
    """The processes of one installation; leaving kills those that still run."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.folder = folder
        self.record = folder / "record"
        self.record.touch()
        self._config = folder / "config.json"
        self._config.write_text(json.dumps(installation.common))
        self._environment = {
            **os.environ,
            "FLOWKIT_TEST_RECORD": str(self.record),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._started:
            process.kill()

    def _arguments(self, verb: str, *args: object) -> list[str]:
        return [verb, "--config", str(self._config), *map(str, args)]

    def start(self, verb: str, *args: str, clock_ahead_sec: float = 0, **fields: Any) -> Process:
        """Start a coordinator or a worker with these fields in its configuration."""
        settings = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
        arguments = [*self._arguments(verb, *args), *settings, "--log-json"]
        log = self.folder / f"{verb}-{len(self._started)}.log"
        if clock_ahead_sec:  # the clock is changed before anything is imported
            process = started(
                [sys.executable, "-m", "flowkit.cli", *arguments],
                log=log,
                environment=shifted(self._environment, clock_ahead_sec),
            )
        else:
            fork = Fork(
                "flowkit.cli",
                arguments,
                folder=ROOT,
                environment=self._environment,
                stdout=log,
                stderr=log,
            )
            process = Process(fork, log=log)
        self._started.append(process)
        return process

    def coordinator(self, **fields: Any) -> Process:
        return self.start("coordinator", **fields)

    def worker(self, **fields: Any) -> Process:
        return self.start("worker", *RECORDING, **fields)

    async def run(self, verb: str, *args: object) -> subprocess.CompletedProcess[str]:
        """Run a verb and wait for its end."""
        return await anyio.to_thread.run_sync(
            lambda: run_fork(
                "flowkit.cli",
                self._arguments(verb, *args),
                folder=ROOT,
                environment=self._environment,
                timeout=PATIENCE_SEC,
            )
        )

    def recorded(self, what: str = "ran") -> list[tuple[str, str, int, int]]:
        """Return task, node, attempt and process of each recorded execution."""
        lines = [line.split() for line in self.record.read_text().splitlines()]
        return [
            (task_id, node_id, int(attempt), int(pid))
            for kind, task_id, node_id, attempt, pid in lines
            if kind == what
        ]

    def lines_recorded(self) -> int:
        """Return the number of all lines."""
        return self.record.read_bytes().count(b"\n")

    def slow_from(self, batch: int) -> None:
        """Let readers of streams be slow from this batch on, until the gate is open."""
        (self.folder / "slow_from").write_text(str(batch))

    def open_gate(self) -> None:
        """Let the ``gated`` nodes end."""
        (self.folder / "open").touch()


async def until(condition: Callable[[], bool], *, within: float = PATIENCE_SEC) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s")
        await anyio.sleep(0.02)
