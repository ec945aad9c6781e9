"""Sleeping tasks and signals: in memory, in an SQLite file, and on a real Kafka and MongoDB.

    python -m benchmarks.waiting                          everything; starts both servers
    python -m benchmarks.waiting memory sqlite            without servers
    python -m benchmarks.waiting servers --tasks 10000    fewer sleeping tasks

``restart`` starts a coordinator beside sleeping tasks, and compares it with one beside an empty
store. ``signal`` measures from the call to the start of the next node, and compares it with the
start of the first node of a new task. It prints one JSON object a line. Times are in milliseconds.
``cpu_milliseconds`` is the processor time of this process, which other programs disturb least.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.servers import ROLE, flowkit_worker, noop, process, say
from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.task import TaskView
from flowkit.worker import Worker
from flowkit_testing import InMemoryBus, InMemoryStore
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

DAY = 24 * 3600.0
IDLE_SEC = 10.0
"""Seconds over which the processor time of a coordinator beside sleeping tasks is measured."""
SIGNALS = 200
AT_ONCE = 500
"""Submissions at the same time."""
SLEEPING = {"nodes": [{"node_id": "sleep", "type": "sleep", "io": {"for_sec": DAY}}]}
NO_SLEEP = {"nodes": [{"node_id": "sleep", "type": "sleep", "io": {"for_sec": 0}}]}
FIRST_NODE = {"nodes": [{"node_id": "next", "type": ROLE}]}
WAITING = {
    "nodes": [
        {"node_id": "wait", "type": "wait_signal", "io": {"signal": "go"}},
        {"node_id": "next", "type": ROLE, "depends_on": ["wait"]},
    ]
}

Members = AbstractAsyncContextManager[Any]


@dataclass(frozen=True)
class Place:
    """Storage of tasks: how to open a coordinator, a client and a worker there."""

    name: str
    coordinator: Callable[[], Coordinator]
    client: Callable[[], Client]
    worker: Callable[[], Members]


# ---------------------------------------------------------------- places


@asynccontextmanager
async def memory() -> AsyncIterator[Place]:
    async with InMemoryBus() as bus, InMemoryStore() as store:
        given: dict[str, Any] = {"bus": bus, "store": store}
        yield Place(
            "memory",
            lambda: Coordinator(cfg=CoordinatorConfig(worker_types=[ROLE]), **given),
            lambda: Client(**given),
            lambda: Worker(handlers=[noop], cfg=WorkerConfig(), **given),
        )


@asynccontextmanager
async def sqlite() -> AsyncIterator[Place]:
    with TemporaryDirectory() as folder:
        address = f"sqlite:///{Path(folder) / 'flowkit.db'}"
        yield Place(
            "sqlite",
            lambda: Coordinator(db=address, cfg=CoordinatorConfig(worker_types=[ROLE])),
            lambda: Client(db=address),
            lambda: Worker(db=address, handlers=[noop], cfg=WorkerConfig()),
        )


@asynccontextmanager
async def servers(kafka: str, mongo: str) -> AsyncIterator[Place]:
    name = f"bench{uuid.uuid4().hex[:8]}"
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo)
    config = CoordinatorConfig(
        bus=f"kafka://{kafka}", namespace=name, worker_types=[ROLE, "produce", "consume"]
    )

    @asynccontextmanager
    async def worker() -> AsyncIterator[None]:
        with process(flowkit_worker, kafka, mongo, name):
            yield

    yield Place(
        "servers",
        lambda: Coordinator(db=client[name], cfg=config),
        lambda: Client(db=client[name], cfg=config),
        worker,
    )
    await client.drop_database(name)
    await client.close()


# ---------------------------------------------------------------- restarts


async def submit_sleeping(coordinator: Coordinator, count: int) -> None:
    for first in range(0, count, AT_ONCE):
        some = range(first, min(first + AT_ONCE, count))
        await asyncio.gather(*(coordinator.create_task(graph=SLEEPING) for _ in some))


@dataclass(frozen=True)
class Restart:
    """A start of a coordinator, and what it costs until and after its first task has run."""

    milliseconds: float
    cpu_milliseconds: float
    idle_cpu_milliseconds_a_second: float


async def restart(place: Place) -> Restart:
    begin, used = time.perf_counter(), time.process_time()
    async with place.coordinator() as coordinator:
        await coordinator.wait(await coordinator.create_task(graph=NO_SLEEP), timeout=60)
        took = time.perf_counter() - begin
        await asyncio.sleep(1)
        cpu = time.process_time() - used
        used = time.process_time()
        await asyncio.sleep(IDLE_SEC)
        idle = (time.process_time() - used) / IDLE_SEC
    return Restart(took * 1000, cpu * 1000, idle * 1000)


async def measure_restart(place: Place, count: int) -> None:
    async with place.coordinator() as coordinator:  # creates what is missing
        await coordinator.wait(await coordinator.create_task(graph=NO_SLEEP), timeout=60)
    empty = await restart(place)
    async with place.coordinator() as coordinator:
        await submit_sleeping(coordinator, count)
    full = await restart(place)
    say(
        f"{place.name}: restart beside {count} sleeping tasks",
        milliseconds=full.milliseconds,
        ratio=full.milliseconds / empty.milliseconds,
        cpu_milliseconds=full.cpu_milliseconds,
        cpu_ratio=full.cpu_milliseconds / empty.cpu_milliseconds,
    )
    say(
        f"{place.name}: {count} tasks sleep",
        cpu_milliseconds_a_second=full.idle_cpu_milliseconds_a_second,
        ratio=full.idle_cpu_milliseconds_a_second / empty.idle_cpu_milliseconds_a_second,
    )


# ---------------------------------------------------------------- signals


async def next_started_ms(client: Client, task_id: str, begin: float) -> float:
    """Return the milliseconds from ``begin`` to the start of the node ``next``."""
    view: TaskView = await client.wait(task_id, timeout=60)
    started = view.nodes["next"].started_at
    assert started is not None, view.error
    return (started.timestamp() - begin) * 1000


async def measure_signals(place: Place) -> None:
    signalled, submitted, cpu = [], [], []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(place.coordinator())
        await stack.enter_async_context(place.worker())
        client = await stack.enter_async_context(place.client())
        for _ in range(20):  # a JVM is slow at first
            await client.wait(await client.create_task(graph=FIRST_NODE), timeout=60)
        for _ in range(SIGNALS):
            begin = time.time()
            task_id = await client.create_task(graph=FIRST_NODE)
            submitted.append(await next_started_ms(client, task_id, begin))
            task_id = await client.create_task(graph=WAITING)
            begin, used = time.time(), time.process_time()
            await client.signal(task_id, "go", {"x": 1})
            signalled.append(await next_started_ms(client, task_id, begin))
            cpu.append((time.process_time() - used) * 1000)
    say(
        f"{place.name}: from a signal to the start of the next node",
        milliseconds=statistics.median(signalled),
        nine_of_ten_below=statistics.quantiles(signalled, n=10)[-1],
        ratio=statistics.median(signalled) / statistics.median(submitted),
        cpu_milliseconds=statistics.median(cpu),
    )


# ---------------------------------------------------------------- main


async def measure(place: AbstractAsyncContextManager[Place], count: int) -> None:
    async with place as opened:
        await measure_signals(opened)
        await measure_restart(opened, count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["memory", "sqlite", "servers"]
    parser.add_argument("places", nargs="*", choices=[[], *names], help="all if none is named")
    parser.add_argument("--tasks", type=int, default=100_000, help="sleeping tasks")
    given = parser.parse_args()
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        for name in given.places or names:
            if name == "memory":
                asyncio.run(measure(memory(), given.tasks))
            elif name == "sqlite":
                asyncio.run(measure(sqlite(), given.tasks))
            else:
                with KafkaServer.start() as kafka, MongoServers() as mongo:
                    asyncio.run(measure(servers(kafka.address, mongo.address), given.tasks))


if __name__ == "__main__":
    main()
