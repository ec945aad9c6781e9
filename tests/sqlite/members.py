"""Coordinators, workers and clients on one file, each a process that tests may kill.

``python -m tests.sqlite.members KIND FOLDER`` is one of them. :class:`Members` forks them from a
process that has imported everything, so that each is ready within milliseconds.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

import anyio

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Worker
from tests.chaos import clients
from tests.chaos.handlers import HANDLERS, LEDGER_VARIABLE, ROLES
from tests.forks import ROOT, Fork, fork_server

PATIENCE_SEC = 90.0
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
        self._running: dict[int, Fork] = {}

    def __enter__(self) -> Self:
        fork_server().ask("import", ["tests.chaos.clients", "tests.chaos.handlers"])
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in tuple(self._running):
            self.kill(pid)

    @property
    def _log(self) -> Path:
        return self._folder / "members.log"

    def logged(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self, kind: str) -> int:
        """Start a process and return its id."""
        process = Fork(
            "tests.sqlite.members",
            [kind, str(self._folder)],
            folder=ROOT,
            environment={**os.environ, LEDGER_VARIABLE: str(self.ledgers)},
            stdout=self._log,
            stderr=self._log,
        )
        self._running[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """Kill a process with SIGKILL."""
        self.end(pid, signal.SIGKILL)

    def end(self, pid: int, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to a process and return its exit status."""
        process = self._running[pid]
        process.send_signal(number)
        status = process.wait(PATIENCE_SEC)
        del self._running[pid]
        return status


async def be_coordinator(folder: Path) -> None:
    await Coordinator(cfg=CoordinatorConfig.load(folder / "coordinator.json")).run()


async def be_worker(folder: Path) -> None:
    await Worker(cfg=WorkerConfig.load(folder / "worker.json"), handlers=HANDLERS).run()


async def be_client(folder: Path) -> None:
    load = json.loads((folder / "load.json").read_text())
    await clients.main(folder / "client.json", folder / "ledgers", **load)


KINDS = {"coordinator": be_coordinator, "worker": be_worker, "client": be_client}


if __name__ == "__main__":
    anyio.run(KINDS[sys.argv[1]], Path(sys.argv[2]))
