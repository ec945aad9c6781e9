"""Cluster for chaos runs: servers behind proxies, and all parts of FlowKit as processes."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.chaos.handlers import LEDGER_VARIABLE, ROLES
from tests.chaos.proxy import Link, Proxy
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers
from tests.servers.ports import LOOPBACK
from tests.servers.processes import ServerProcess
from tests.services.clocks import shifted
from tests.services.support import QUICK_KAFKA, Installation

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = 3
PATIENCE_SEC = 60.0
QUICK_BUS = {**QUICK_KAFKA, "patience_sec": 12.0}
QUICK_MONGO = {
    "operation_timeout_sec": 8.0,
    "retry_for_sec": 10.0,
    "server_selection_timeout_ms": 5000,
}
COORDINATOR = {
    "worker_types": list(ROLES),
    "scheduler_tick_sec": 1,
    "heartbeat_soft_sec": 2,
    "heartbeat_hard_sec": 4,
    "lease_ttl_sec": 4,
    "cancel_grace_sec": 3,
}
WORKER = {"hb_interval_sec": 0.7, "max_concurrency": 16, "cancel_grace_sec": 2, "stop_grace_sec": 5}


class ProcessSlot:
    """One supervised process, which is replaced when it ends."""

    def __init__(
        self,
        kind: str,
        number: int,
        command: list[str],
        *,
        folder: Path,
        environment: dict[str, str],
    ) -> None:
        self.kind, self.number = kind, number
        self.name = f"{kind} {number}"
        self._command = command
        self._environment = environment
        self._folder = folder / f"{kind}-{number}"
        self.log = folder / f"{kind}-{number}.log"
        self._process: ServerProcess | None = None
        self.clock_ahead_sec = 0.0
        """Offset of the wall clock of the next process."""
        self.lock = threading.Lock()
        """Held while a disaster or a restart is under way."""
        self.ends: list[tuple[float, int, int]] = []
        """Time, process id and status of each unexpected end."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = (
            shifted(self._environment, self.clock_ahead_sec)
            if self.clock_ahead_sec
            else self._environment
        )
        self._process = ServerProcess(
            self._command, folder=self._folder, log=self.log, environment=environment
        )

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def stop(self, *, timeout: float = PATIENCE_SEC) -> int | None:
        """Send SIGTERM and return the exit status; kill the process after the timeout."""
        process, self._process = self._process, None
        if process is None:
            return None
        _wait_until_sigterm_is_handled(process.pid)
        process.stop(timeout=timeout)
        return process.status

    def suspend(self) -> None:
        if self._process is not None:
            self._process.suspend()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()

    def restart_if_ended(self) -> None:
        """Start a new process if the present one ended unexpectedly."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            process = self._process
            if process is not None and process.status is not None:
                self.ends.append((time.time(), process.pid, process.status))
                self.kill()
                self.start()
        finally:
            self.lock.release()


def _wait_until_sigterm_is_handled(pid: int) -> None:
    """Return when the process has a SIGTERM handler: before that, the signal would kill it.

    See ``SigCgt`` in proc(5).
    """
    status = Path(f"/proc/{pid}/status")
    until = time.monotonic() + PATIENCE_SEC
    while time.monotonic() < until:
        try:
            caught = next(
                line for line in status.read_text().splitlines() if line.startswith("SigCgt:")
            )
        except OSError:
            return
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.05)


class Cluster:
    """All servers and processes of a chaos run. Entering starts them, leaving ends them."""

    def __init__(
        self, folder: Path, *, seed: int, coordinators: int, workers: int, nodes_per_sec: float
    ) -> None:
        self.folder = folder
        self.ledgers = folder / "ledgers"
        self.ledgers.mkdir(parents=True)
        self.store_links: list[Link] = []
        self._seed, self._nodes_per_sec = seed, nodes_per_sec
        self._counts = {"coordinator": coordinators, "worker": workers}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._proxy = stack.enter_context(Proxy())
            self.bus_link = self._proxy.link()
            starts: list[Callable[[], Any]] = [self._start_kafka, self._start_mongo]
            with ThreadPoolExecutor() as pool:
                started = [
                    pool.submit(lambda start=start: stack.enter_context(start()))
                    for start in starts
                ]
            self.kafka, self.mongo = (each.result() for each in started)
            self.bus_link.target = int(self.kafka.address.rpartition(":")[2])
            proxied = Installation(
                kafka=f"{LOOPBACK}:{self.bus_link.port}",
                mongo=self.mongo.address,
                kafka_options=QUICK_BUS,
            )
            proxied.common["options"]["mongo"] = QUICK_MONGO
            self.installation = proxied
            self.slots = self._make_slots()
            for slot in self.slots:
                stack.callback(slot.kill)
                slot.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start_kafka(self) -> KafkaServer:
        return KafkaServer.start(
            advertised_listeners=f"PLAINTEXT://{LOOPBACK}:{self.bus_link.port}"
        )

    def _start_mongo(self) -> MongoServers:
        return MongoServers(members=MEMBERS, front=self._in_front_of)

    def _in_front_of(self, port: int) -> int:
        self.store_links.append(self._proxy.link(port))
        return self.store_links[-1].port

    def _make_slots(self) -> list[ProcessSlot]:
        python = [sys.executable, "-m"]
        common = self.installation.common
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": path, "NO_COLOR": "1", LEDGER_VARIABLE: str(self.ledgers)}
        configs = {"coordinator": common | COORDINATOR, "worker": common | WORKER, "client": common}
        for kind, config in configs.items():
            (self.folder / f"{kind}.json").write_text(json.dumps(config), encoding="utf-8")
        commands = {
            "coordinator": [*python, "flowkit.cli", "coordinator", "--log-json"],
            "worker": [
                *python,
                "flowkit.cli",
                "worker",
                "--handlers",
                "tests.chaos.handlers:HANDLERS",
                "--log-json",
            ],
        }
        slots = [
            ProcessSlot(
                kind,
                number,
                [*command, "--config", str(self.folder / f"{kind}.json")],
                folder=self.folder,
                environment=environment,
            )
            for kind, command in commands.items()
            for number in range(self._counts[kind])
        ]
        client = [
            *python,
            "tests.chaos.clients",
            str(self.folder / "client.json"),
            str(self.ledgers),
        ]
        client += ["--seed", str(self._seed), "--nodes-per-sec", str(self._nodes_per_sec)]
        return [
            *slots,
            ProcessSlot("client", 0, client, folder=self.folder, environment=environment),
        ]

    def topics(self) -> list[str]:
        """Return every topic of the installation."""
        cfg = self.installation.config
        return [
            cfg.events_topic,
            cfg.control_topic,
            cfg.dead_letter_topic,
            *map(cfg.command_topic, ROLES),
        ]

    def slots_of(self, kind: str) -> list[ProcessSlot]:
        return [slot for slot in self.slots if slot.kind == kind]
