"""Handlers with one batch beside functions, in turns: in memory, in SQLite and on real servers.

    python -m benchmarks.one_batch                  everything; starts both servers
    python -m benchmarks.one_batch memory sqlite    without servers

Each node runs a handler class with the default ``iter_batches``, an async generator that yields
once, or a function. It prints one JSON object a line. ``ratio`` compares with the function:
``seconds`` by time, ``cpu`` by the processor time of this process, in which the worker is, too,
except on servers.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.servers import process, say
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker, handler
from flowkit_testing import InMemoryBus, InMemoryStore
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers


class OneBatch(Handler):
    """Handler whose input is one batch."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(success=True, metrics={"n": 1}, artifacts_ref={"x": 1})


@handler("function")
async def function(item: Any) -> dict[str, int]:
    return {"x": 1}


@handler("generator")
async def generator(item: Any) -> AsyncIterator[dict[str, int]]:
    yield {"x": 1}


HANDLERS = {"function": function, "class": OneBatch(), "generator": generator}
KINDS = tuple(HANDLERS)
Graph = dict[str, Any]


def chain(role: str, length: int) -> Graph:
    return {
        "nodes": [
            {"node_id": f"n{i}", "type": role, "depends_on": [f"n{i - 1}"] if i else []}
            for i in range(length)
        ]
    }


def fan(role: str, width: int) -> Graph:
    middle = [{"node_id": f"f{i}", "type": role, "depends_on": ["s"]} for i in range(width)]
    last = {"node_id": "z", "type": role, "depends_on": [f"f{i}" for i in range(width)]}
    return {"nodes": [{"node_id": "s", "type": role}, *middle, last]}


# ---------------------------------------------------------------- places


@asynccontextmanager
async def memory() -> AsyncIterator[Coordinator]:
    async with InMemoryBus() as bus, InMemoryStore() as store:
        given: dict[str, Any] = {"bus": bus, "store": store}
        async with members(given, given) as coordinator:
            yield coordinator


@asynccontextmanager
async def sqlite() -> AsyncIterator[Coordinator]:
    with TemporaryDirectory() as folder:
        given = {"db": f"sqlite:///{Path(folder) / 'flowkit.db'}"}
        async with members(given, given) as coordinator:
            yield coordinator


@asynccontextmanager
async def members(ours: dict[str, Any], theirs: dict[str, Any]) -> AsyncIterator[Coordinator]:
    coordinator = Coordinator(cfg=CoordinatorConfig(worker_types=[*KINDS]), **ours)
    worker = Worker(cfg=WorkerConfig(max_concurrency=256), handlers=HANDLERS, **theirs)
    async with coordinator, worker:
        yield coordinator


def serve(kafka: str, mongo: str, name: str) -> None:
    async def run() -> None:
        config = WorkerConfig(bus=f"kafka://{kafka}", namespace=name, max_concurrency=256)
        await Worker(db=AsyncMongoClient(mongo)[name], cfg=config, handlers=HANDLERS).run()

    # As in the process of `flowkit worker`.
    with rare_collections():
        asyncio.run(run())


@asynccontextmanager
async def servers() -> AsyncIterator[Coordinator]:
    name = f"bench{uuid.uuid4().hex[:8]}"
    with KafkaServer.start() as kafka, MongoServers() as mongo:
        config = CoordinatorConfig(
            bus=f"kafka://{kafka.address}", namespace=name, worker_types=[*KINDS]
        )
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.address)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            stack.enter_context(process(serve, kafka.address, mongo.address, name))
            yield await stack.enter_async_context(Coordinator(db=client[name], cfg=config))


PLACES: dict[str, Callable[[], AbstractAsyncContextManager[Coordinator]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "servers": servers,
}


# ---------------------------------------------------------------- measuring


async def run(coordinator: Coordinator, graph: Graph) -> tuple[float, float]:
    """Return the time of a task, and the processor time of this process, in seconds."""
    begin, used = time.perf_counter(), time.process_time()
    view = await coordinator.wait(await coordinator.create_task(graph=graph), timeout=600)
    assert view.status == "finished", view.error
    return time.perf_counter() - begin, time.process_time() - used


async def measure(name: str, rounds: int) -> None:
    async with PLACES[name]() as coordinator:
        for role in KINDS:
            for _ in range(3):  # a JVM is slow at first
                await run(coordinator, fan(role, 300))
        for workload, make, size, repeats in (("chain", chain, 10, 10), ("fan", fan, 1_000, 1)):
            took: dict[str, list[tuple[float, float]]] = {role: [] for role in KINDS}
            for _ in range(rounds * repeats):
                for role in KINDS:
                    took[role].append(await run(coordinator, make(role, size)))
            medians = {
                role: [statistics.median(figure) for figure in zip(*figures, strict=True)]
                for role, figures in took.items()
            }
            for role in KINDS:
                seconds, cpu = medians[role]
                say(
                    f"{name}: {workload} of {size}, {role}",
                    milliseconds_a_node=seconds / size * 1000,
                    cpu_milliseconds_a_node=cpu / size * 1000,
                    ratio=seconds / medians["function"][0],
                    cpu_ratio=cpu / medians["function"][1],
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="*", choices=[[], *PLACES], help="all if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        for name in given.places or PLACES:
            asyncio.run(measure(name, given.rounds))


if __name__ == "__main__":
    main()
