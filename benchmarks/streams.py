"""Streams on a real Kafka and MongoDB, in an SQLite file, and in memory.

    python -m benchmarks.streams                    everything; starts both servers
    python -m benchmarks.streams memory sqlite      without servers
    python -m benchmarks.streams servers --seconds 300

``three stages`` runs a stream of 10,000 batches through three nodes: batches a second of all nodes
together, and the time from the first batch of the first node until the last one reads it. ``fast
producer`` has batches of 10 KB, and a reader that needs 10 ms for each: the memory of each process
and how many batches the producer is ahead of its reader, over some time. Then it cancels the task.
It prints one JSON object a line.

On servers and with a file, the coordinator is this process, and each role has a worker process.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from benchmarks.processes import processor_seconds, resident_mb
from benchmarks.servers import process, say
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.task import TaskView
from flowkit.worker import Worker, handler
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

BATCHES = 10_000
MANY = 100_000
TEXT = "x" * 10_000
SLOW_SEC = 0.01
MADE, READ = 0, 1
"""Places of the counts."""
SAMPLES = 20
"""Times at which a fast producer and its reader are looked at."""


@handler("first")
async def first(item: int) -> AsyncIterator[dict[str, float]]:
    for _ in range(item):
        yield {"at": time.time()}


@handler("second")
async def second(item: dict[str, float]) -> dict[str, float]:
    return item


@handler("third")
async def third(item: dict[str, float]) -> dict[str, float]:
    return {"late": time.time() - item["at"]}


class Counts:
    """The numbers of batches that a producer has made and its reader has read, in any process."""

    def __init__(self, name: str | None = None) -> None:
        self.shared = SharedMemory(name, create=name is None, size=16)
        assert self.shared.buf is not None
        self._numbers = self.shared.buf.cast("q")

    def add(self, place: int) -> None:
        self._numbers[place] += 1

    @property
    def made(self) -> int:
        return self._numbers[MADE]

    @property
    def read(self) -> int:
        return self._numbers[READ]

    def clear(self) -> None:
        self._numbers[MADE] = self._numbers[READ] = 0

    def close(self) -> None:
        self._numbers.release()
        self.shared.close()


def fast_and_slow(counts: Counts) -> list[Any]:
    @handler("fast")
    async def fast(item: int) -> AsyncIterator[dict[str, str]]:
        for _ in range(item):
            counts.add(MADE)
            yield {"text": TEXT}

    @handler("slow")
    async def slow(item: dict[str, str]) -> None:
        await asyncio.sleep(SLOW_SEC)
        counts.add(READ)

    return [fast, slow]


ROLES = ["first", "second", "third", "fast", "slow"]
READS = {"start_when": "first_batch"}
THREE_STAGES = {
    "nodes": [
        {"node_id": "a", "type": "first", "io": {"input_inline": BATCHES}},
        {"node_id": "b", "type": "second", "depends_on": ["a"], "io": READS},
        {"node_id": "c", "type": "third", "depends_on": ["b"], "io": READS},
    ]
}
FAST_PRODUCER = {
    "nodes": [
        {"node_id": "fast", "type": "fast", "io": {"input_inline": MANY}},
        {"node_id": "slow", "type": "slow", "depends_on": ["fast"], "io": READS},
    ]
}


@dataclass(frozen=True)
class Place:
    """Storage of tasks, with running members."""

    name: str
    coordinator: Coordinator
    counts: Counts
    pids: dict[str, int]
    """The processes, by what runs in them."""


# ---------------------------------------------------------------- places


def handlers(counts: Counts) -> list[Any]:
    return [first, second, third, *fast_and_slow(counts)]


@contextmanager
def counting() -> Iterator[Counts]:
    counts = Counts()
    try:
        yield counts
    finally:
        counts.close()
        counts.shared.unlink()


def serve(db: str, bus: str, namespace: str, number: str, shared: str) -> None:
    counts = Counts(shared)

    async def run() -> None:
        cfg = WorkerConfig(bus=bus, namespace=namespace)
        await Worker(db=db, cfg=cfg, handlers=[handlers(counts)[int(number)]]).run()

    # As in the process of `flowkit worker`.
    with rare_collections():
        asyncio.run(run())
    counts.close()


@asynccontextmanager
async def memory() -> AsyncIterator[Place]:
    with counting() as counts:
        coordinator = Coordinator(db="memory://", cfg=CoordinatorConfig(worker_types=ROLES))
        worker = Worker(db="memory://", cfg=WorkerConfig(), handlers=handlers(counts))
        async with coordinator, worker:
            yield Place("memory", coordinator, counts, {"all": os.getpid()})


@asynccontextmanager
async def in_processes(name: str, db: str, bus: str) -> AsyncIterator[Place]:
    namespace = f"bench{uuid.uuid4().hex[:8]}"
    cfg = CoordinatorConfig(bus=bus, namespace=namespace, worker_types=ROLES)
    async with AsyncExitStack() as stack:
        counts = stack.enter_context(counting())
        coordinator = await stack.enter_async_context(Coordinator(db=db, cfg=cfg))
        given = counts.shared.name
        pids = {
            role: stack.enter_context(process(serve, db, bus, namespace, str(number), given))
            for number, role in enumerate(ROLES)
        }
        yield Place(name, coordinator, counts, {"coordinator": os.getpid(), **pids})


@asynccontextmanager
async def sqlite() -> AsyncIterator[Place]:
    with TemporaryDirectory(prefix="flowkit-streams-") as folder:
        address = f"sqlite:///{Path(folder) / 'flowkit.db'}"
        async with in_processes("sqlite", address, address) as place:
            yield place


@asynccontextmanager
async def servers() -> AsyncIterator[Place]:
    with KafkaServer.start() as kafka, MongoServers() as mongo:
        address = urlsplit(mongo.address)._replace(path="/bench").geturl()
        async with in_processes("servers", address, f"kafka://{kafka.address}") as place:
            yield place


# ---------------------------------------------------------------- measuring


async def ended(coordinator: Coordinator, graph: dict[str, Any]) -> TaskView:
    view = await coordinator.wait(await coordinator.create_task(graph=graph), timeout=600)
    assert view.status == "finished", view.error
    return view


async def measure_three_stages(place: Place, rounds: int) -> None:
    took, late, cpu = [], [], []
    for number in range(rounds + 1):  # the first one warms up
        used, begin = processor_seconds([os.getpid()]), time.perf_counter()
        view = await ended(place.coordinator, THREE_STAGES)
        if not number:
            continue
        took.append(time.perf_counter() - begin)
        cpu.append(processor_seconds([os.getpid()]) - used)  # with the workers, its children
        found = [artifact async for artifact in place.coordinator.artifacts(view.id, "c")]
        assert len(found) == BATCHES, len(found)
        late.append(float(str(found[0].meta["late"])) * 1000)
    say(
        f"{place.name}: three stages, {BATCHES} batches",
        batches_a_second=round(3 * BATCHES / statistics.median(took)),
        first_batch_milliseconds=statistics.median(late),
        cpu_milliseconds_a_batch=statistics.median(cpu) / (3 * BATCHES) * 1000,
    )


async def measure_fast_producer(place: Place, seconds: float) -> None:
    before = {name: resident_mb(pid) for name, pid in place.pids.items()}
    most, ahead = dict(before), []
    place.counts.clear()
    task_id = await place.coordinator.create_task(graph=FAST_PRODUCER)
    for _ in range(SAMPLES):
        await asyncio.sleep(seconds / SAMPLES)
        for name, pid in place.pids.items():
            most[name] = max(most[name], resident_mb(pid))
        ahead.append(place.counts.made - place.counts.read)
    read = place.counts.read
    await place.coordinator.cancel(task_id)
    await place.coordinator.wait(task_id, timeout=60)
    say(
        f"{place.name}: fast producer, {seconds:g} s",
        read=read,
        most_batches_ahead=max(ahead),
        most_mb={name: round(mb) for name, mb in most.items()},
        mb_before={name: round(mb) for name, mb in before.items()},
    )


PLACES = {"memory": memory, "sqlite": sqlite, "servers": servers}


def measure(name: str, rounds: int, seconds: float) -> None:
    async def run() -> None:
        async with PLACES[name]() as place:
            await measure_three_stages(place, rounds)
            await measure_fast_producer(place, seconds)

    # As in the process of `flowkit coordinator`.
    with rare_collections():
        asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="*", choices=[[], *PLACES], help="all if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="of the fast producer")
    given = parser.parse_args()
    for name in given.places or PLACES:  # each in a process without the memory of others
        one = multiprocessing.get_context("spawn").Process(
            target=measure, args=(name, given.rounds, given.seconds)
        )
        one.start()
        one.join()


if __name__ == "__main__":
    main()
