"""Overload of two workers: a backlog drains without repeated commands, and a burst passes.

    python benchmarks/overload.py                a backlog of 100,000 nodes, then a tenfold burst
    python benchmarks/overload.py --nodes 10000  a smaller backlog

It prints one JSON object a line. Coordinator and workers are in one process, on the in-memory bus
and store, in real time.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.protocols import Message, Place
from flowkit.worker import Worker, handler
from flowkit_testing import InMemoryBus, InMemoryStore

ROLE = "work"
WIDTH = 500
"""Number of nodes of each task in the backlog: fewer than may be dispatched at once."""
PHASE_SEC = 5.0


@handler(ROLE)
async def work(item: Any) -> None:
    return None


class CountingBus(InMemoryBus):
    """Bus that counts how often each command is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: Counter[str] = Counter()
        self._topic = CoordinatorConfig().command_topic(ROLE)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.commands.update(message.key for message in messages if message.topic == self._topic)
        return await super().publish(messages)

    @property
    def sent_twice(self) -> int:
        return sum(count - 1 for count in self.commands.values())


@asynccontextmanager
async def overloaded() -> AsyncIterator[tuple[CountingBus, Coordinator]]:
    async with CountingBus() as bus, InMemoryStore() as store:
        coordinator = Coordinator(cfg=CoordinatorConfig(worker_types=[ROLE]), bus=bus, store=store)
        workers = [
            Worker(bus=bus, store=store, handlers=[work], cfg=WorkerConfig(max_concurrency=16))
            for _ in range(2)
        ]
        async with coordinator, workers[0], workers[1]:
            yield bus, coordinator


def say(workload: str, **figures: Any) -> None:
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    print(json.dumps({"workload": workload, **rounded}), flush=True)


async def backlog(nodes: int) -> None:
    """Queue all nodes at once, and measure how the backlog drains."""
    graph = {"nodes": [{"node_id": f"n{number}", "type": ROLE} for number in range(WIDTH)]}
    async with overloaded() as (bus, coordinator):
        begin = time.perf_counter()
        task_ids = [await coordinator.create_task(graph=graph) for _ in range(nodes // WIDTH)]
        queued = time.perf_counter() - begin
        views = [await coordinator.wait(task_id, timeout=3600) for task_id in task_ids]
        took = time.perf_counter() - begin
        assert all(view.status == "finished" for view in views)
        say(
            f"backlog of {nodes}",
            seconds=took,
            submitted_within=queued,
            nodes_a_second=round(nodes / took),
            commands=bus.commands.total(),
            sent_twice=bus.sent_twice,
        )


class Traffic:
    """Tasks of one node, submitted at a constant rate that does not wait for earlier tasks."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._tasks: set[asyncio.Task[None]] = set()

    async def _one(self, latencies: list[float]) -> None:
        begin = time.perf_counter()
        task_id = await self._coordinator.create_task(
            graph={"nodes": [{"node_id": "n", "type": ROLE}]}
        )
        await self._coordinator.wait(task_id, timeout=3600)
        latencies.append(time.perf_counter() - begin)

    async def phase(self, name: str, rate: float, seconds: float) -> None:
        latencies: list[float] = []
        begin = time.perf_counter()
        count = 0
        while (passed := time.perf_counter() - begin) < seconds:
            while count < rate * passed:
                task = asyncio.create_task(self._one(latencies))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                count += 1
            await asyncio.sleep(0.005)
        in_time = len(latencies)
        if self._tasks:
            await asyncio.wait(self._tasks)
        say(
            name,
            offered_a_second=round(rate),
            done_a_second=round(in_time / seconds),
            milliseconds=1000 * statistics.median(latencies),
            worst_milliseconds=1000 * max(latencies),
            drained_after=time.perf_counter() - begin - seconds,
        )


async def burst(rate: float) -> None:
    async with overloaded() as (bus, coordinator):
        traffic = Traffic(coordinator)
        await traffic.phase("warming up", rate, PHASE_SEC)
        await traffic.phase("before the burst", rate, PHASE_SEC)
        await traffic.phase("tenfold burst", 10 * rate, PHASE_SEC)
        await traffic.phase("after the burst", rate, PHASE_SEC)
        say("burst", commands=bus.commands.total(), sent_twice=bus.sent_twice)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100_000, help="size of the backlog")
    parser.add_argument(
        "--rate", type=float, default=200, help="tasks a second before and after the burst"
    )
    given = parser.parse_args()
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        await backlog(given.nodes)
        await burst(given.rate)


if __name__ == "__main__":
    asyncio.run(main())
