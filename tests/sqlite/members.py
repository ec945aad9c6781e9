"""Coordinators, workers and clients on one file, each a process that tests may kill.

``python -m tests.sqlite.members FOLDER`` imports everything once. For each line ``start KIND`` it
then forks a process, which is ready within milliseconds, and prints its id. For ``wait PID`` it
prints the exit status.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import anyio

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Worker
from tests.chaos import clients
from tests.chaos.handlers import HANDLERS, LEDGER_VARIABLE, ROLES

ROOT = Path(__file__).resolve().parents[2]
COORDINATOR = {
    "worker_types": list(ROLES),
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 0.6,
    "heartbeat_hard_sec": 1.2,
    "lease_ttl_sec": 1.2,
    "cancel_grace_sec": 1.0,
}
WORKER = {"hb_interval_sec": 0.2, "max_concurrency": 16, "cancel_grace_sec": 1.0}
SQLITE = {"lease_sec": 1.0}


class Members:
    """The processes on one file. Leaving kills those that still run."""

    def __init__(self, folder: Path, *, seed: int, nodes_per_sec: float) -> None:
        self.path = folder / "flowkit.db"
        self.ledgers = folder / "ledgers"
        self.ledgers.mkdir()
        address = f"sqlite:///{self.path}"
        self.common: dict[str, Any] = {
            "db": address,
            "bus": address,
            "options": {"sqlite": SQLITE},
        }
        for kind, fields in {"coordinator": COORDINATOR, "worker": WORKER, "client": {}}.items():
            (folder / f"{kind}.json").write_text(json.dumps(self.common | fields))
        (folder / "load.json").write_text(
            json.dumps({"seed": seed, "nodes_per_sec": nodes_per_sec})
        )
        self._folder = folder
        self._running: set[int] = set()

    def __enter__(self) -> Self:
        self._log = (self._folder / "members.log").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.sqlite.members", str(self._folder)],
            cwd=ROOT,
            env={**os.environ, LEDGER_VARIABLE: str(self.ledgers)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in tuple(self._running):
            self.kill(pid)
        self._server.communicate()
        self._log.close()

    def logged(self) -> str:
        return (self._folder / "members.log").read_text(errors="replace")

    def start(self, kind: str) -> int:
        """Start a process and return its id."""
        pid = self._ask(f"start {kind}")
        self._running.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Kill a process with SIGKILL."""
        self.end(pid, signal.SIGKILL)

    def end(self, pid: int, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to a process and return its exit status."""
        os.kill(pid, number)
        status = self._ask(f"wait {pid}")
        self._running.discard(pid)
        return status

    def _ask(self, line: str) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


async def be_coordinator(folder: Path) -> None:
    await Coordinator(cfg=CoordinatorConfig.load(folder / "coordinator.json")).run()


async def be_worker(folder: Path) -> None:
    await Worker(cfg=WorkerConfig.load(folder / "worker.json"), handlers=HANDLERS).run()


async def be_client(folder: Path) -> None:
    load = json.loads((folder / "load.json").read_text())
    await clients.main(folder / "client.json", folder / "ledgers", **load)


KINDS = {"coordinator": be_coordinator, "worker": be_worker, "client": be_client}


def fork(kind: str, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        anyio.run(KINDS[kind], folder)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(folder: Path) -> None:
    for line in sys.stdin:
        match line.split():
            case ["start", kind]:
                print(fork(kind, folder), flush=True)
            case ["wait", pid]:
                print(os.waitstatus_to_exitcode(os.waitpid(int(pid), 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
