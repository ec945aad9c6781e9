"""FlowKit: each workload is a graph. The bare loop on the same servers runs the same graphs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.bare import BareCoordinator
from benchmarks.peers.sessions import Session
from benchmarks.peers.settings import Settings
from benchmarks.servers import (
    ROLE,
    Run,
    bare_run,
    bare_worker,
    chain,
    flowkit_run,
    noop,
    process,
)
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.worker import Worker, handler

FIRST, NEXT = "items", "pass_on"


@handler(FIRST)
async def items(item: int) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


@handler(NEXT)
async def pass_on(item: dict[str, int]) -> dict[str, int]:
    return item


HANDLERS = [noop, items, pass_on]
ROLES = [ROLE, FIRST, NEXT]
CONCURRENCY = 256


class GraphSession:
    """Session of what runs graphs."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def chain(self, length: int) -> None:
        await self._run([chain(length)])

    async def fan(self, width: int) -> None:
        together = [f"n{number}" for number in range(width)]
        await self._run([{**{node: [] for node in together}, "last": together}])

    async def tasks(self, count: int) -> None:
        await self._run([chain(1)] * count)

    async def stream(self, items: int) -> None:
        raise NotImplementedError("the bare loop has no streams")


class FlowKitSession(GraphSession):
    def __init__(self, coordinator: Coordinator) -> None:
        async def run(graphs: Any) -> None:
            await flowkit_run(coordinator, graphs)

        super().__init__(run)
        self._coordinator = coordinator

    async def stream(self, items: int) -> None:
        task_id = await self._coordinator.create_task(graph=three_stages(items))
        view = await self._coordinator.wait(task_id, timeout=600)
        assert view.status == "finished", view.error


def three_stages(count: int) -> dict[str, Any]:
    """Return a graph whose stages read the items of the one before while it produces them."""
    reads = {"start_when": "first_batch"}
    return {
        "nodes": [
            {"node_id": "a", "type": FIRST, "io": {"input_inline": count}},
            {"node_id": "b", "type": NEXT, "depends_on": ["a"], "io": reads},
            {"node_id": "c", "type": NEXT, "depends_on": ["b"], "io": reads},
        ]
    }


# ---------------------------------------------------------------- places


@asynccontextmanager
async def in_one_process(address: str) -> AsyncIterator[Session]:
    coordinator = Coordinator(db=address, cfg=CoordinatorConfig(worker_types=ROLES))
    worker = Worker(db=address, cfg=WorkerConfig(max_concurrency=CONCURRENCY), handlers=HANDLERS)
    async with coordinator, worker:
        yield FlowKitSession(coordinator)


@asynccontextmanager
async def on_servers(settings: Settings) -> AsyncIterator[Session]:
    kafka, mongo = settings.addresses["kafka"], settings.addresses["mongo"]
    config = CoordinatorConfig(bus=f"kafka://{kafka}", namespace=settings.name, worker_types=ROLES)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo)
    with process(serve, kafka, mongo, settings.name):
        async with Coordinator(db=client[settings.name], cfg=config) as coordinator:
            yield FlowKitSession(coordinator)
    await client.drop_database(settings.name)
    await client.close()


def serve(kafka: str, mongo: str, name: str) -> None:
    async def run() -> None:
        config = WorkerConfig(bus=f"kafka://{kafka}", namespace=name, max_concurrency=CONCURRENCY)
        await Worker(db=AsyncMongoClient(mongo)[name], cfg=config, handlers=HANDLERS).run()

    # As in the process of `flowkit worker`.
    with rare_collections():
        asyncio.run(run())


@asynccontextmanager
async def bare_loop(settings: Settings) -> AsyncIterator[Session]:
    kafka, mongo = settings.addresses["kafka"], settings.addresses["mongo"]
    with process(bare_worker, kafka, settings.name):
        async with BareCoordinator(mongo=mongo, kafka=kafka, name=settings.name) as bare:

            async def run(graphs: Any) -> None:
                await bare_run(bare, graphs)

            yield GraphSession(run)


PLACES: dict[str, Callable[[Settings], AbstractAsyncContextManager[Session]]] = {
    "flowkit-memory": lambda _: in_one_process("memory://"),
    "flowkit-sqlite": lambda settings: in_one_process(
        f"sqlite:///{Path(settings.folder) / 'flowkit.db'}"
    ),
    "flowkit-servers": on_servers,
    "bare-loop": bare_loop,
}


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        async with PLACES[settings.system](settings) as session:
            yield session
