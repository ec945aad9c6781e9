"""Overhead of FlowKit: coordinator and worker in one process, on the in-memory bus and store.

    python benchmarks/embedded.py            every workload, one JSON object a line; medians
    python benchmarks/embedded.py chain fan  only these

``ratio`` compares with a bare loop in the same run, which only encodes and decodes the same
messages.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from benchmarks.processes import resident_mb
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.messages import NodeSucceeded, RunContextData, RunNode, decode, encode
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker, handler
from flowkit_testing import InMemoryArtifactStore, InMemoryBus, InMemoryStore

ROLE = "noop"


@handler(ROLE)
async def noop(item: Any) -> None:
    return None


class Produce(Handler):
    """Handler that produces a long stream of small batches."""

    async def iter_batches(self, loaded: dict[str, Any]) -> AsyncIterator[Batch]:
        for number in range(loaded["input_inline"]["batches"]):
            yield Batch(batch_uid=str(number), payload=None)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(success=True, metrics={"n": 1}, artifacts_ref={"n": batch.batch_uid})


class Consume(Handler):
    """Handler that reads the stream."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(success=True, metrics={"n": 1})


@asynccontextmanager
async def cluster(store: InMemoryStore | None = None) -> AsyncIterator[Coordinator]:
    async with InMemoryBus() as bus, store or InMemoryStore() as opened:
        coordinator = Coordinator(cfg=CoordinatorConfig(worker_types=[ROLE]), bus=bus, store=opened)
        worker = Worker(
            cfg=WorkerConfig(max_concurrency=256),
            bus=bus,
            store=opened,
            handlers={ROLE: noop, "produce": Produce(), "consume": Consume()},
        )
        async with coordinator, worker:
            yield coordinator


def chain(length: int) -> dict[str, Any]:
    return {
        "nodes": [
            {"node_id": f"n{i}", "type": ROLE, "depends_on": [f"n{i - 1}"] if i else []}
            for i in range(length)
        ]
    }


def fan(width: int) -> dict[str, Any]:
    middle = [{"node_id": f"f{i}", "type": ROLE, "depends_on": ["s"]} for i in range(width)]
    last = {"node_id": "z", "type": ROLE, "depends_on": [f"f{i}" for i in range(width)]}
    return {"nodes": [{"node_id": "s", "type": ROLE}, *middle, last]}


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


async def run(coordinator: Coordinator, graph: dict[str, Any]) -> None:
    await finished(coordinator, await coordinator.create_task(graph=graph))


async def finished(coordinator: Coordinator, task_id: str) -> None:
    view = await coordinator.wait(task_id, timeout=600)
    assert view.status == "finished", view.error


async def many(coordinator: Coordinator, count: int) -> None:
    graph = chain(1)
    task_ids = [await coordinator.create_task(graph=graph) for _ in range(count)]
    for task_id in task_ids:
        await finished(coordinator, task_id)


def bare_loop(count: int) -> float:
    """Return the seconds to encode and decode the messages of a node: a command and its report."""
    token = "0" * 24
    data = RunContextData(io={}, params={}, vars={}, results={})
    begin = time.perf_counter()
    for index in range(count):
        command = encode(
            RunNode(
                task_id="t", index=index, attempt=1, token=token, node_id="n", role=ROLE, data=data
            )
        )
        read = decode(command)
        decode(
            encode(
                NodeSucceeded(
                    task_id="t",
                    index=read.index,
                    attempt=1,
                    token=token,
                    worker_id="w",
                    started_at=0.0,
                    at=0.0,
                )
            )
        )
    return time.perf_counter() - begin


def say(workload: str, **figures: Any) -> None:
    rounded = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    print(json.dumps({"workload": workload, **rounded}), flush=True)


async def measure_tasks(rounds: int) -> None:
    took = []
    for _ in range(rounds):
        async with cluster() as coordinator:
            await many(coordinator, 500)
            took.append(await seconds(lambda: many(coordinator, 10_000)))
    median = statistics.median(took)
    say(
        "10000 one-node tasks",
        nodes_a_second=round(10_000 / median),
        ratio=bare_loop(10_000) / median,
        seconds=median,
    )


async def measure_fan(rounds: int) -> None:
    per_node = {}
    async with cluster() as coordinator:
        await run(coordinator, fan(100))
        for width, repeats in ((100, 10), (1_000, 3), (10_000, 1)):
            took = [
                await seconds(lambda: run(coordinator, fan(width)))  # noqa: B023
                for _ in range(rounds * repeats)
            ]
            median = statistics.median(took)
            per_node[width] = median / (width + 2)
            say(
                f"fan of {width}",
                nodes_a_second=round(1 / per_node[width]),
                ratio=bare_loop(width) / median,
                seconds=median,
            )
    say("fan: cost a node, 10000 to 100", ratio=per_node[10_000] / per_node[100])


async def measure_chain(rounds: int) -> None:
    async with cluster() as coordinator:
        for _ in range(20):
            await run(coordinator, chain(10))
        took = [await seconds(lambda: run(coordinator, chain(10))) for _ in range(50 * rounds)]
        median = statistics.median(took)
        say(
            "chain of 10",
            milliseconds=median * 1000,
            best=min(took) * 1000,
            ratio=bare_loop(10) / median,
        )
        per_node = {}
        for length in (100, 10_000):
            took = [await seconds(lambda: run(coordinator, chain(length))) for _ in range(rounds)]  # noqa: B023
            per_node[length] = statistics.median(took) / length
        say(
            "chain: cost a node, 10000 to 100",
            ratio=per_node[10_000] / per_node[100],
            microseconds=per_node[10_000] * 1e6,
        )


async def measure_stored(rounds: int) -> None:
    """Measure the same work with an empty store and with 100,000 finished tasks in it."""
    async with InMemoryStore() as full, cluster(full) as loaded, cluster() as fresh:
        for _ in range(10):
            await many(loaded, 10_000)
        ratios = []
        for _ in range(rounds * 3):
            with_them = await seconds(lambda: many(loaded, 1_000))
            ratios.append(with_them / await seconds(lambda: many(fresh, 1_000)))
        say("100000 finished tasks stored", ratio=statistics.median(ratios))


class PassingArtifacts(InMemoryArtifactStore):
    """Artifact store that drops the artifacts of a stream after they were read.

    All other memory that grows with a stream belongs to FlowKit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[Stream, deque[ArtifactRecord]] = {}
        self._stored: dict[Stream, int] = {}
        self.highest = 0.0
        """Peak of resident memory after the first ten thousand batches, in megabytes."""
        self.early = 0.0

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        for record in records:
            position = self._stored[record.stream] = self._stored.get(record.stream, 0) + 1
            if record.meta is not None:
                self._waiting.setdefault(record.stream, deque()).append(
                    replace(record, position=position)
                )
            if position % 10_000 == 0:
                self.highest = max(self.highest, resident_mb(os.getpid()))
                self.early = self.early or self.highest
        return [True] * len(records)

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        waiting = self._waiting.get(stream, deque())
        while waiting and waiting[0].position <= after:
            waiting.popleft()
        return list(islice(waiting, limit))


async def measure_stream(batches: int) -> None:
    """Measure a producer and its streaming reader, on a store that drops artifacts once read."""
    store = InMemoryStore()
    artifacts = store.artifacts = PassingArtifacts()
    graph = {
        "nodes": [
            {"node_id": "produce", "type": "produce", "io": {"input_inline": {"batches": batches}}},
            {
                "node_id": "consume",
                "type": "consume",
                "depends_on": ["produce"],
                "io": {
                    "start_when": "first_batch",
                    "input_inline": {"input_adapter": "pull.from_artifacts"},
                },
            },
        ]
    }
    async with cluster(store) as coordinator:
        took = await seconds(lambda: run(coordinator, graph))
    say(
        f"stream of {batches} batches",
        batches_a_second=round(batches / took),
        seconds=took,
        megabytes=artifacts.highest,
        ratio=artifacts.highest / artifacts.early,
    )


WORKLOADS: dict[str, Callable[[int], Awaitable[None]]] = {
    "tasks": measure_tasks,
    "fan": measure_fan,
    "chain": measure_chain,
    "stored": measure_stored,
    "stream": lambda rounds: measure_stream(1_000_000),
}


async def main() -> None:
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        await measure()


def asked(description: str | None, workloads: Iterable[str]) -> argparse.Namespace:
    """Return the ``workloads`` and ``rounds`` that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "workloads", nargs="*", choices=[[], *workloads], help="which ones; all if none is named"
    )
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


async def measure() -> None:
    given = asked(__doc__, WORKLOADS)
    for name in given.workloads or WORKLOADS:
        await WORKLOADS[name](given.rounds)


if __name__ == "__main__":
    asyncio.run(main())
