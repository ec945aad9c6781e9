"""Idle workers take over the runs that wait on a busy one, also if a worker is killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig
from tests.builders import graph, node
from tests.sqlite.members import COORDINATOR, SQLITE

pytestmark = pytest.mark.anyio

PATIENT = {"max": 20, "backoff_sec": 0.1}


@contextmanager
def worker(path: Path, ledger: Path, worker_id: str) -> Iterator[None]:
    """Run a worker in a process, and kill it in the end."""
    command = [sys.executable, "-m", "tests.sqlite.slot_process", str(path), str(ledger), worker_id]
    with subprocess.Popen(command) as running:
        try:
            yield
        finally:
            running.kill()


def begun(ledger: Path) -> dict[str, list[str]]:
    """Return the workers of each node that began, in order."""
    workers: dict[str, list[str]] = {}
    for line in ledger.read_text().splitlines():
        node_id, worker_id = line.split()
        workers.setdefault(node_id, []).append(worker_id)
    return workers


async def test_runs_that_a_killed_worker_has_taken_over_start_elsewhere(
    anyio_backend: str, path: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    address = f"sqlite:///{path}"
    options = {"sqlite": {**SQLITE, "partitions": 1}}
    cfg = CoordinatorConfig(bus=address, options=options, **COORDINATOR)
    nodes = [node(f"n{number}", retry_policy=PATIENT) for number in range(8)]
    async with Coordinator(db=address, cfg=cfg), Client(db=address, bus=address) as client:
        with worker(path, ledger, "stays"):
            task_id = await client.create_task(graph=graph(*nodes))
            with anyio.fail_after(60):
                while not begun(ledger):
                    await anyio.sleep(0.02)
            with worker(path, ledger, "dies"), anyio.fail_after(60):
                while sum(workers == ["dies"] for workers in begun(ledger).values()) < 2:
                    await anyio.sleep(0.02)
            view = await client.wait(task_id, 60)
    assert view.status == "finished"
    found = begun(ledger)
    assert len(found) == 8
    again = {node_id: workers for node_id, workers in found.items() if len(workers) > 1}
    assert list(again.values()) in ([], [["dies", "stays"]]), "only the run that was killed"
