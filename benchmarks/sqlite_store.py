"""The store in an SQLite file: many ended tasks, artifacts, a large purge, and durability.

    python -m benchmarks.sqlite_store                    every workload, one JSON object a line
    python -m benchmarks.sqlite_store tasks artifacts    only these

Each ``ratio`` compares two figures of the same run: a file with ended tasks and one without, or the
store and plain SQLite statements.
"""

import argparse
import asyncio
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from benchmarks.embedded import ROLE, chain, many, noop, run, say, seconds
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.protocols import ArtifactRecord, Commit, Stream, TaskHeader, TaskRecord
from flowkit.worker import Worker
from flowkit_sqlite import SqliteStore

ENDED = 100_000
AT_ONCE = 1_000
ARTIFACTS = 1_000_000
PAGE = 1_000
DURABLE = 400
LONG_AGO = 1_000_000.0


@asynccontextmanager
async def cluster(path: Path, synchronous: str = "full") -> AsyncIterator[Coordinator]:
    """A coordinator and a worker in one process, with the store and the bus in one file."""
    address = f"sqlite:///{path}"
    options = {"sqlite": {"synchronous": synchronous}}
    config = CoordinatorConfig(bus=address, worker_types=[ROLE], options=options)
    coordinator = Coordinator(db=address, cfg=config)
    worker = Worker(
        db=address,
        cfg=WorkerConfig(bus=address, max_concurrency=256, options=options),
        handlers={ROLE: noop},
    )
    async with coordinator, worker:
        yield coordinator


def ended(number: int) -> TaskRecord:
    """Return an ended task of one node, as coordinators store it."""
    header = TaskHeader(
        f"ended-{number:07}", "finished", LONG_AGO + number, finished_at=LONG_AGO + number
    )
    parts = {
        "state": b"x" * 170,
        "n0": b"x" * 230,
        "e0000000001": b"x" * 90,
        "e0000000003": b"x" * 210,
    }
    return TaskRecord(header, b"x" * 290, parts, op_id="benchmark")


async def fill(path: Path, count: int) -> float:
    """Store ended tasks and return the seconds that it took."""
    async with SqliteStore(f"sqlite:///{path}") as store:

        async def create() -> None:
            for first in range(0, count, AT_ONCE):
                await store.create([ended(number) for number in range(first, first + AT_ONCE)])

        return await seconds(create)


# ---------------------------------------------------------------- ended tasks


async def measure_tasks(folder: Path, rounds: int) -> None:
    """Run the same tasks in a file with ended tasks and in one without, in turns."""
    say("store ended tasks", tasks_a_second=round(ENDED / await fill(folder / "full.db", ENDED)))
    workloads: dict[str, Callable[[Coordinator], Awaitable[None]]] = {
        "200 one-node tasks": lambda coordinator: many(coordinator, 200),
        "10 chains of 10": ten_chains,
    }
    async with cluster(folder / "full.db") as full, cluster(folder / "empty.db") as empty:
        for workload in workloads.values():
            for coordinator in (full, empty):
                await workload(coordinator)
        for name, workload in workloads.items():
            ratios, took = [], []
            for turn in range(10 * rounds):
                order = (full, empty) if turn % 2 else (empty, full)
                pair = {each: await seconds(lambda: workload(each)) for each in order}  # noqa: B023
                ratios.append(pair[full] / pair[empty])
                took.append(pair[full])
            # Other programs disturb both sides of a pair alike.
            say(
                f"{name} beside {ENDED} ended tasks",
                ratio=statistics.median(ratios),
                milliseconds=statistics.median(took) * 1000,
            )


async def ten_chains(coordinator: Coordinator) -> None:
    for _ in range(10):
        await run(coordinator, chain(10))


# ---------------------------------------------------------------- artifacts


def artifact(stream: Stream, number: int) -> ArtifactRecord:
    meta = b'{"path":"s3://bucket/part-%07d","rows":1000}' % number
    return ArtifactRecord(stream, f"{number:07}", True, meta, b'{"rows":1000}', LONG_AGO + number)


async def measure_artifacts(folder: Path, rounds: int) -> None:
    path, stream = folder / "artifacts.db", Stream("task", "node")
    async with SqliteStore(f"sqlite:///{path}") as store:
        began = time.perf_counter()
        for first in range(0, ARTIFACTS, PAGE):
            await store.artifacts.put(
                [artifact(stream, number) for number in range(first, first + PAGE)]
            )
        say(f"put {ARTIFACTS} artifacts", a_second=round(ARTIFACTS / (time.perf_counter() - began)))

        async def read() -> None:
            position = 0
            while page := await store.artifacts.read(stream, after=position, limit=PAGE):
                position = page[-1].position
            assert position == ARTIFACTS

        async def scan() -> None:
            cursor, count = None, 0
            while page := await store.artifacts.scan("task", after=cursor, limit=PAGE):
                cursor, count = page[-1][0], count + len(page)
            assert count == ARTIFACTS

        for name, work in {"read": read, "scan": scan}.items():
            took = statistics.median([await seconds(work) for _ in range(rounds)])
            say(
                f"{name} {ARTIFACTS} artifacts",
                a_second=round(ARTIFACTS / took),
                ratio=took / bare_read(path),
            )


def bare_read(path: Path) -> float:
    """Return the seconds in which plain SQLite reads all artifacts, page by page."""
    began = time.perf_counter()
    with closing(sqlite3.connect(path)) as connection:
        last = 0
        while rows := connection.execute(
            "SELECT position, uid, partial, meta, metrics, created_at FROM artifacts"
            " WHERE owner = 1 AND node_id = 'node' AND generation = 0 AND position > ?"
            " ORDER BY position LIMIT ?",
            (last, PAGE),
        ).fetchall():
            last = rows[-1][0]
    return time.perf_counter() - began


# ---------------------------------------------------------------- purge


async def measure_purge(folder: Path, rounds: int) -> None:
    """Purge ended tasks while another task is committed all the time."""
    path = folder / "purge.db"
    await fill(path, ENDED)
    async with SqliteStore(f"sqlite:///{path}") as store:
        await store.create([TaskRecord(TaskHeader("canary", "running", LONG_AGO), b"", {})])
        version = 1

        async def commit() -> float:
            nonlocal version
            change = Commit("canary", version, "", "running", None, None, {"state": b"x" * 200})
            took = await seconds(lambda: store.commit([change]))
            version += 1
            return took

        alone = [await commit() for _ in range(1_000)]
        began = time.perf_counter()
        purge = asyncio.create_task(purge_all(store))
        beside = []
        while not purge.done():
            beside.append(await commit())
        assert await purge == ENDED
    say(
        f"commits beside a purge of {ENDED} tasks",
        seconds=time.perf_counter() - began,
        ratio=statistics.median(beside) / statistics.median(alone),
        longest_milliseconds=max(beside) * 1000,
        commits=len(beside),
    )


async def purge_all(store: SqliteStore) -> int:
    count = 0
    while purged := await store.purge(finished_before=2 * LONG_AGO):
        count += purged
    return count


# ---------------------------------------------------------------- durability


async def measure_durability(folder: Path, rounds: int) -> None:
    """Run one-node tasks one after another and 20 at once with both settings, in turns."""
    async with (
        cluster(folder / "synchronous-full.db") as full,
        cluster(folder / "synchronous-normal.db", "normal") as normal,
    ):
        for at_once in (1, 20):
            took: dict[Coordinator, list[float]] = {full: [], normal: []}
            for _ in range(1 + rounds):
                for each, times in took.items():
                    times.append(await seconds(lambda: lanes(each, at_once)))  # noqa: B023
            # The first turn warms up.
            full_sec, normal_sec = (statistics.median(times[1:]) for times in took.values())
            say(
                f"one-node tasks, {at_once} at once: synchronous normal to full",
                ratio=full_sec / normal_sec,
                full_tasks_a_second=round(DURABLE / full_sec),
                normal_tasks_a_second=round(DURABLE / normal_sec),
            )


async def lanes(coordinator: Coordinator, at_once: int) -> None:
    async def lane() -> None:
        for _ in range(DURABLE // at_once):
            await run(coordinator, chain(1))

    await asyncio.gather(*(lane() for _ in range(at_once)))


WORKLOADS = {
    "tasks": measure_tasks,
    "artifacts": measure_artifacts,
    "purge": measure_purge,
    "durability": measure_durability,
}


async def main(names: list[str], rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="flowkit-sqlite-"))
    try:
        for name in names or WORKLOADS:
            await WORKLOADS[name](folder, rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.workloads, arguments.rounds))
