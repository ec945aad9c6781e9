"""The store and the bus in one SQLite file, beside those in memory: coordinator and worker.

    python -m benchmarks.sqlite_overhead               every workload, one JSON object a line
    python -m benchmarks.sqlite_overhead chain fan     only these

The rounds in the file and in memory take turns, and the figures are medians. ``ratio`` compares
rates: 0.5 means half as many nodes per second as in memory. ``processor`` compares the processor
time of a node, which other programs of the machine disturb less.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.embedded import ROLE, chain, cluster, fan, finished, many, noop, run, say
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.worker import Worker

Cluster = Callable[[], AbstractAsyncContextManager[Coordinator]]
LENGTH = 10
WIDTH = 1_000
TASKS = 10_000
SUBMITTERS = 100


@asynccontextmanager
async def in_file(path: Path) -> AsyncIterator[Coordinator]:
    """A coordinator and a worker in one process, with the store and the bus in one file."""
    async with coordinator(path) as opened, worker(path):
        yield opened


@asynccontextmanager
async def in_processes(path: Path) -> AsyncIterator[Coordinator]:
    """A coordinator in this process and a worker in another one."""
    async with coordinator(path) as opened:
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.sqlite_overhead", "--worker", str(path)
        )
        try:
            yield opened
        finally:
            other.terminate()
            await other.wait()


def coordinator(path: Path) -> Coordinator:
    address = f"sqlite:///{path}"
    return Coordinator(db=address, cfg=CoordinatorConfig(bus=address, worker_types=[ROLE]))


def worker(path: Path) -> Worker:
    address = f"sqlite:///{path}"
    config = WorkerConfig(bus=address, max_concurrency=256)
    return Worker(db=address, cfg=config, handlers={ROLE: noop})


async def run_worker(path: Path) -> None:
    with rare_collections():
        async with worker(path):
            await asyncio.sleep(3600)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a round, and the processor seconds of this process in it."""

    wall: float
    processor: float


async def cost(work: Callable[[], Awaitable[object]]) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    await work()
    return Cost(time.perf_counter() - wall, time.process_time() - processor)


async def compare(
    name: str,
    clusters: Mapping[str, Cluster],
    work: Callable[[Coordinator], Awaitable[object]],
    *,
    nodes: int,
    rounds: int,
) -> None:
    """Run the work on all clusters in turns, and print the figures of each."""
    costs: dict[str, list[Cost]] = {place: [] for place in clusters}
    for _ in range(rounds):
        for place, open_cluster in clusters.items():
            async with open_cluster() as opened:
                await run(opened, chain(LENGTH))
                await work(opened)
                costs[place] += [await cost(lambda: work(opened)) for _ in range(5)]
    medians = {
        place: Cost(
            statistics.median(one.wall for one in some),
            statistics.median(one.processor for one in some),
        )
        for place, some in costs.items()
    }
    memory = medians["memory"]
    for place, median in medians.items():
        say(
            f"{name}, {place}",
            milliseconds_a_node=median.wall / nodes * 1000,
            nodes_a_second=round(nodes / median.wall),
            ratio=memory.wall / median.wall,
            processor=median.processor / memory.processor,
        )


async def main(names: list[str], rounds: int, tasks: int) -> None:
    with tempfile.TemporaryDirectory(prefix="flowkit-sqlite-") as folder:
        path = Path(folder)
        clusters: dict[str, Cluster] = {
            "memory": cluster,
            "file": lambda: in_file(path / "one.db"),
        }
        apart: Cluster = lambda: in_processes(path / "two.db")  # noqa: E731
        if "chain" in names:
            await compare(
                "chain of 10",
                {**clusters, "two processes": apart},
                lambda opened: repeat(opened, 10),
                nodes=10 * LENGTH,
                rounds=rounds,
            )
        if "fan" in names:
            await compare(
                f"fan of {WIDTH}",
                clusters,
                lambda opened: run(opened, fan(WIDTH)),
                nodes=WIDTH + 2,
                rounds=rounds,
            )
        if "tasks" in names:
            await compare(
                f"{tasks} one-node tasks by {SUBMITTERS} submitters",
                clusters,
                lambda opened: many_at_once(opened, tasks),
                nodes=tasks,
                rounds=rounds,
            )
            await compare(
                f"{tasks} one-node tasks by one submitter",
                clusters,
                lambda opened: many(opened, tasks),
                nodes=tasks,
                rounds=rounds,
            )


async def many_at_once(opened: Coordinator, count: int) -> None:
    """Run one-node tasks. Each submitter waits for the confirmation of one before the next."""
    graph = chain(1)
    numbers = iter(range(count))

    async def submit() -> list[str]:
        return [await opened.create_task(graph=graph) for _ in numbers]

    for task_ids in await asyncio.gather(*(submit() for _ in range(SUBMITTERS))):
        for task_id in task_ids:
            await finished(opened, task_id)


async def repeat(opened: Coordinator, count: int) -> None:
    for _ in range(count):
        await run(opened, chain(LENGTH))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=["chain", "fan", "tasks", []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(run_worker(arguments.worker))
    else:
        with rare_collections():
            chosen = arguments.workloads or ["chain", "fan", "tasks"]
            asyncio.run(main(chosen, arguments.rounds, arguments.tasks))
