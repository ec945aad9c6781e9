"""Coordinator and worker on a full disk: nothing is lost, and work continues when there is space.

A shared library that is preloaded into the processes makes the disk full.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sqlite.compilers import compiled, needs_preloading

pytestmark = needs_preloading

HARD_SEC = 1.5
COORDINATOR = {"heartbeat_soft_sec": 0.8, "heartbeat_hard_sec": HARD_SEC, "lease_ttl_sec": HARD_SEC}
PATIENCE_SEC = 60.0
HANDLERS = """
import time
from pathlib import Path
from flowkit.worker import handler

@handler("wait")
def wait(item, ctx):
    with Path("runs").open("a") as runs:
        print(ctx.task_id, ctx.attempt, file=runs)
    while not Path("go").exists():
        time.sleep(0.05)
"""
GRAPH = '{"nodes": [{"node_id": "n", "type": "wait"}]}'


@dataclass
class Disk:
    """A folder with a database whose disk can be full, and the processes that use it."""

    folder: Path
    environment: dict[str, str]
    processes: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def full(self) -> Iterator[None]:
        marker = Path(self.environment["FLOWKIT_TEST_FULL"])
        marker.touch()
        yield
        marker.unlink()

    def flowkit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SEC,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a service whose log is in the file with the name of its verb."""
        log = self.processes.enter_context((self.folder / f"{arguments[0]}.log").open("ab"))
        process = subprocess.Popen(
            self._command(*arguments), cwd=self.folder, env=self.environment, stderr=log
        )
        self.processes.callback(process.wait)
        self.processes.callback(process.kill)
        return process

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "flowkit.cli", *arguments, "--db", "sqlite:///flowkit.db"]

    def log(self, verb: str) -> str:
        return (self.folder / f"{verb}.log").read_text()

    @property
    def runs(self) -> list[str]:
        path = self.folder / "runs"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "graph.json").write_text(GRAPH)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(compiled("full_disk", tmp_path)),
        "FLOWKIT_TEST_FULL": str(tmp_path / "full"),
        "FLOWKIT_TEST_FULL_FOR": str(tmp_path / "flowkit.db"),
    }
    disk = Disk(tmp_path, environment)
    with disk.processes:
        yield disk


def until(is_true: Callable[[], bool], what: Callable[[], str]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SEC
    while not is_true():
        assert time.monotonic() < give_up_at, what()
        time.sleep(0.05)


def settings() -> list[str]:
    return [part for name, value in COORDINATOR.items() for part in ("--set", f"{name}={value}")]


def start_services(disk: Disk) -> list[subprocess.Popen[bytes]]:
    worker = ["--handlers", "handlers.py", "--set", "hb_interval_sec=0.3"]
    return [disk.start("coordinator", *settings()), disk.start("worker", *worker)]


def test_no_worker_is_lost_on_a_full_disk_and_work_continues_when_there_is_space(
    disk: Disk,
) -> None:
    start_services(disk)
    until(lambda: (disk.folder / "flowkit.db").exists(), lambda: disk.log("coordinator"))
    assert disk.flowkit("submit", "graph.json", "--task-id", "t1").returncode == 0
    until(lambda: bool(disk.runs), lambda: disk.log("worker"))
    with disk.full():
        full = "the disk is full"
        until(lambda: full in disk.log("coordinator"), lambda: disk.log("coordinator"))
        until(lambda: full in disk.log("worker"), lambda: disk.log("worker"))
        time.sleep(3 * HARD_SEC)
        shown = disk.flowkit("show", "t1")
        (disk.folder / "go").touch()
    assert shown.returncode == 0, shown.stderr
    assert "running" in shown.stdout
    watched = disk.flowkit("watch", "t1")
    assert watched.returncode == 0, watched.stderr
    assert disk.runs == ["t1 1"]
    assert "are lost" not in disk.log("coordinator")


def test_processes_that_are_killed_on_a_full_disk_lose_nothing(disk: Disk) -> None:
    services = start_services(disk)
    until(lambda: (disk.folder / "flowkit.db").exists(), lambda: disk.log("coordinator"))
    assert disk.flowkit("submit", "graph.json", "--task-id", "t1").returncode == 0
    until(lambda: bool(disk.runs), lambda: disk.log("worker"))
    with disk.full():
        until(lambda: "the disk is full" in disk.log("worker"), lambda: disk.log("worker"))
        for process in services:
            process.kill()
            process.wait()
        # The first process that opens the file needs space for the file that all of them share.
        refused = disk.flowkit("ls")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "flowkit.db: " in refused.stderr
        assert "the disk is full" in refused.stderr
        assert "Traceback" not in refused.stderr
    (disk.folder / "go").touch()
    start_services(disk)
    watched = disk.flowkit("watch", "t1")
    assert watched.returncode == 0, watched.stderr
    assert disk.runs == ["t1 1", "t1 2"]
