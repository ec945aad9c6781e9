"""Nodes with concurrency keys beside plain nodes: coordinator and worker in one process.

    python -m benchmarks.keys                       every workload, one JSON object a line
    python -m benchmarks.keys contended             only this one
    python -m benchmarks.keys --db sqlite:///FILE --bus sqlite:///FILE

The nodes do nothing, and are side by side. Both kinds run in turns, and the figures are medians.
``free``: each of 1,000 nodes has a key of its own. ``contended``: 10,000 nodes share 100 keys.
``ratio`` is the time with keys divided by the time without, by nodes of the same number.
"""

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.embedded import ROLE, noop, run, say, seconds
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.worker import Worker

WORKLOADS = {"free": (1_000, 1_000), "contended": (10_000, 100)}
"""Number of nodes and of keys."""


def graph(size: int, keys: int | None) -> dict[str, Any]:
    """Return a graph of nodes side by side."""
    return {
        "nodes": [
            {"node_id": f"n{number}", "type": ROLE}
            | ({} if keys is None else {"concurrency_key": f"k{number % keys}"})
            for number in range(size)
        ]
    }


@asynccontextmanager
async def opened(db: str, bus: str) -> AsyncIterator[Coordinator]:
    """Open a coordinator and a worker that have run some nodes."""
    config = CoordinatorConfig(bus=bus, worker_types=[ROLE], namespace="bench")
    worker = Worker(
        db=db,
        cfg=WorkerConfig(bus=bus, namespace="bench", max_concurrency=256),
        handlers={ROLE: noop},
    )
    async with Coordinator(db=db, cfg=config) as coordinator, worker:
        await run(coordinator, graph(100, None))
        yield coordinator


async def measure(name: str, db: str, bus: str, rounds: int) -> None:
    size, keys = WORKLOADS[name]
    plain: list[float] = []
    keyed: list[float] = []
    async with opened(db, bus) as coordinator:
        for _ in range(rounds):
            plain.append(await seconds(lambda: run(coordinator, graph(size, None))))
            keyed.append(await seconds(lambda: run(coordinator, graph(size, keys))))
    say(
        f"{name}: {size} nodes with {keys} keys",
        milliseconds=statistics.median(keyed) * 1000 / size,
        plain_milliseconds=statistics.median(plain) * 1000 / size,
        ratio=statistics.median(keyed) / statistics.median(plain),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []])
    parser.add_argument("--db", default="memory://bench")
    parser.add_argument("--bus", default="memory://bench")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        for name in given.workloads or WORKLOADS:
            asyncio.run(measure(name, given.db, given.bus, given.rounds))


if __name__ == "__main__":
    main()
