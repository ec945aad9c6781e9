"""Maps beside static fans: coordinator and worker in one process, on the in-memory bus and store.

    python -m benchmarks.maps                every workload, one JSON object a line
    python -m benchmarks.maps fan size       only these

The children do nothing. ``fan`` runs a map and a fan of as many nodes in turns; its ``ratio``
compares the nodes per second. ``size`` compares the cost of a child of small and large maps.
``memory`` runs a map in a coordinator whose store, bus and worker are elsewhere, in an SQLite file
and in another process: it measures the resident memory of the coordinator above that before the
map. The processor time of this process is what other programs disturb least.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.embedded import ROLE, asked, cluster, fan, finished, run, say
from benchmarks.processes import resident_mb
from benchmarks.sqlite_overhead import in_processes
from flowkit import Coordinator
from flowkit._runtime.garbage_collection import rare_collections

WIDTH = 10_000
LARGE = 100_000
SAMPLE_SEC = 0.1


def mapped() -> dict[str, Any]:
    """Return a graph with a map over a list in the params."""
    return {"nodes": [{"node_id": "m", "type": ROLE, "map": {"over": "${params.items}"}}]}


async def run_map(coordinator: Coordinator, size: int) -> None:
    params = {"items": list(range(size))}
    await finished(coordinator, await coordinator.create_task(graph=mapped(), params=params))


async def used(work: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds that some work takes, and its processor time."""
    begin, cpu = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - begin, time.process_time() - cpu


async def measure_fan(rounds: int) -> None:
    maps, fans = [], []
    async with cluster() as coordinator:
        for _ in range(3):
            await run_map(coordinator, 100)
            await run(coordinator, fan(100))
        for _ in range(rounds):
            maps.append(await used(run_map(coordinator, WIDTH)))
            fans.append(await used(run(coordinator, fan(WIDTH))))
    map_sec, map_cpu = (statistics.median(values) for values in zip(*maps, strict=True))
    fan_sec, fan_cpu = (statistics.median(values) for values in zip(*fans, strict=True))
    say(
        f"map of {WIDTH} beside a fan of {WIDTH}",
        nodes_a_second=round(WIDTH / map_sec),
        ratio=fan_sec / map_sec,
        processor=fan_cpu / map_cpu,
    )


async def measure_size(rounds: int) -> None:
    per_child = {}
    async with cluster() as coordinator:
        for _ in range(5):
            await run_map(coordinator, 100)
        for size, repeats in ((100, 30), (WIDTH, 1), (LARGE, 1)):
            costs = [
                (await used(run_map(coordinator, size)))[1] / size for _ in range(rounds * repeats)
            ]
            per_child[size] = statistics.median(costs)
            say(f"map of {size}", cpu_microseconds_a_child=per_child[size] * 1e6)
    for size in (WIDTH, LARGE):
        say(f"map: cost a child, {size} to 100", ratio=per_child[size] / per_child[100])


async def highest_memory(until: asyncio.Event) -> float:
    """Return the highest resident memory of this process until an event, in megabytes."""
    highest = 0.0
    while not until.is_set():
        highest = max(highest, resident_mb(os.getpid()))
        await asyncio.sleep(SAMPLE_SEC)
    return highest


async def measure_memory(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with in_processes(Path(folder) / "flowkit.db") as coordinator:
            await run_map(coordinator, 100)
            idle = resident_mb(os.getpid())
            over = asyncio.Event()
            sampling = asyncio.create_task(highest_memory(over))
            seconds, _ = await used(run_map(coordinator, LARGE))
            over.set()
            highest = await sampling
    say(f"map of {LARGE}: memory above that before", megabytes=highest - idle, seconds=seconds)


WORKLOADS: dict[str, Callable[[int], Awaitable[None]]] = {
    "memory": measure_memory,  # first: memory that others have used would be used again
    "fan": measure_fan,
    "size": measure_size,
}


async def measure() -> None:
    given = asked(__doc__, WORKLOADS)
    for name, workload in WORKLOADS.items():
        if name in (given.workloads or WORKLOADS):
            await workload(given.rounds)


if __name__ == "__main__":
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        asyncio.run(measure())
