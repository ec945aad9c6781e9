"""Durable tasks in an SQLite file, compared with DBOS on SQLite.

    pip install --group benchmarks
    python -m benchmarks.dbos_sqlite                   every workload, one JSON object a line
    python -m benchmarks.dbos_sqlite --tasks 1000      fewer tasks
    python -m benchmarks.dbos_sqlite --folder /dev/shm    in memory: without the time of syncs

The workloads are one-step tasks that are submitted 200 at a time, a chain of ten steps, and a fan
of parallel steps. Both sides run everything in one process, record the result of each step, and
sync it to the disk before the steps after it start. Each measurement has a new process and a new
file, and the sides take turns.

DBOS runs as its documentation shows, without a queue (``started``) and with one (``queued``), whose
polling interval is a millisecond. It leaves the journal of SQLite at its default, ``delete``. The
side ``dbos-wal`` gets a file with a write-ahead log, like FlowKit's. ``ratio`` compares the faster
ways of both sides.
"""

import argparse
import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.embedded import chain, fan, finished, run, say, seconds
from benchmarks.sqlite_store import cluster
from flowkit import Coordinator
from flowkit._runtime.garbage_collection import rare_collections

AT_ONCE = 200
WARM_UP = 10
CHAIN, CHAINS, FAN = 10, 20, 1_000
QUEUE = "benchmark"
POLL_SEC, RESULT_POLL_SEC = 0.001, 0.01

Workload = Callable[[int], Awaitable[object]]
Ways = Mapping[str, Workload]
"""The ways to run a workload of some size, by name: ``WORKLOAD WAY``."""


async def in_batches(count: int, submit: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Submit tasks, many at a time, and return what identifies them."""
    found: list[Any] = []
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(count, first + AT_ONCE))
        found += await asyncio.gather(*(submit(number) for number in numbers))
    return found


# ---------------------------------------------------------------- FlowKit


@asynccontextmanager
async def flowkit_ways(path: Path) -> AsyncIterator[Ways]:
    async with cluster(path) as coordinator:

        async def tasks(count: int) -> None:
            graph = chain(1)
            task_ids = await in_batches(count, lambda _: coordinator.create_task(graph=graph))
            for task_id in task_ids:
                await finished(coordinator, task_id)

        yield {
            "tasks started": tasks,
            "chain started": graph_of(coordinator, chain),
            "fan started": graph_of(coordinator, fan),
        }


def graph_of(coordinator: Coordinator, shape: Callable[[int], dict[str, Any]]) -> Workload:
    return lambda size: run(coordinator, shape(size))


# ---------------------------------------------------------------- DBOS


@asynccontextmanager
async def dbos_ways(path: Path) -> AsyncIterator[Ways]:
    from dbos import DBOS  # an optional requirement: the dependency group "benchmarks"

    async def do_nothing(number: int) -> dict[str, int]:
        return {"n": 1}

    step = DBOS.step(name="step")(do_nothing)

    async def one_step(number: int) -> Any:
        return await step(number)

    one = DBOS.workflow(name="one")(one_step)

    async def steps_in_turn(count: int) -> None:
        for number in range(count):
            await step(number)

    async def steps_together(count: int) -> None:
        await asyncio.gather(*(step(number) for number in range(count)))

    async def queued(count: int) -> None:
        handles = await in_batches(count, lambda i: DBOS.enqueue_workflow_async(QUEUE, one, i))
        for handle in handles:
            await handle.get_result(polling_interval_sec=RESULT_POLL_SEC)

    async def started(count: int) -> None:
        for handle in await in_batches(count, lambda i: DBOS.start_workflow_async(one, i)):
            await handle.get_result()

    ways: Ways = {
        "tasks started": started,
        "tasks queued": queued,
        "chain started": DBOS.workflow(name="chain")(steps_in_turn),
        "fan started": DBOS.workflow(name="fan")(steps_together),
        "fan queued": DBOS.workflow(name="fan queued")(queued),
    }
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        await DBOS.register_queue_async(QUEUE, polling_interval_sec=POLL_SEC)
        yield ways
    finally:
        DBOS.destroy()


@asynccontextmanager
async def dbos_wal_ways(path: Path) -> AsyncIterator[Ways]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    async with dbos_ways(path) as ways:
        yield ways


# ---------------------------------------------------------------- measurements

SIDES = {"flowkit": flowkit_ways, "dbos": dbos_ways, "dbos-wal": dbos_wal_ways}


async def measure(side: str, path: Path, tasks: int) -> dict[str, float]:
    """Return the seconds of each workload, for each way to run it."""
    sizes = {"tasks": tasks, "chain": CHAIN, "fan": FAN}
    found = {}
    async with SIDES[side](path) as ways:
        for workload in ways.values():
            await workload(WARM_UP)
        for name, workload in ways.items():
            kind = name.split()[0]
            times = [
                await seconds(lambda: workload(sizes[kind]))  # noqa: B023
                for _ in range(CHAINS if kind == "chain" else 1)
            ]
            found[name] = statistics.median(times)
    return found


def measured(side: str, folder: str, tasks: int) -> dict[str, float]:
    """Measure a side in a process of its own, on a new file."""
    with tempfile.TemporaryDirectory(dir=folder) as new:
        path = Path(new) / "benchmark.db"
        command = [sys.executable, "-m", "benchmarks.dbos_sqlite", "--tasks", str(tasks)]
        ran = subprocess.run(
            [*command, "--measure", side, str(path)], check=True, stdout=subprocess.PIPE
        )
    return dict(json.loads(ran.stdout))


def compare(folder: str, tasks: int, rounds: int) -> None:
    times: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    for number in range(rounds):
        order = list(SIDES) if number % 2 == 0 else list(SIDES)[::-1]
        for side in order:
            for name, took in measured(side, folder, tasks).items():
                times[side].setdefault(name, []).append(took)
    medians = {
        side: {name: statistics.median(took) for name, took in names.items()}
        for side, names in times.items()
    }
    for workload, size in {"tasks": tasks, "chain": CHAIN, "fan": FAN}.items():
        best = {side: report(side, workload, size, medians[side]) for side in SIDES}
        for other in list(SIDES)[1:]:
            say(f"{workload}: flowkit to {other}", ratio=best[other] / best["flowkit"])


def report(side: str, workload: str, size: int, medians: Mapping[str, float]) -> float:
    """Print the figures of a workload, and return the seconds of the faster way."""
    ways = {name: took for name, took in medians.items() if name.startswith(workload)}
    for name, took in ways.items():
        say(
            f"{side}: {name}",
            steps_a_second=round(size / took),
            milliseconds_a_step=took / size * 1000,
        )
    return min(ways.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the files are")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        side, path = given.measure
        # As in the processes of `flowkit coordinator` and `flowkit worker`.
        with rare_collections():
            print(json.dumps(asyncio.run(measure(side, Path(path), given.tasks))))
    elif find_spec("dbos") is None:
        parser.error("dbos is not installed: pip install --group benchmarks")
    else:
        compare(given.folder, given.tasks, given.rounds)
