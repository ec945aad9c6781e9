"""Installation in memory, and flows for it."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from flowkit import Client, Coordinator, CoordinatorConfig, TaskView, WorkerConfig
from flowkit.config import CommonConfig
from flowkit.worker import Worker, handler


@handler("work")
async def work(item: Any) -> Any:
    return {"got": item}


@handler("fail")
async def fail(item: Any) -> Any:
    raise ValueError("bad luck")


@handler("batches")
async def batches(item: Any) -> Any:
    for number in range(item["count"]):
        yield {"number": number}


@handler("picky")
async def picky(items: Any) -> Any:
    if 2 in items:
        raise ValueError("not 2")
    return {"items": items}


ONE = {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": {"x": 1}}}]}
FAILING = {
    "nodes": [
        {"node_id": "a", "type": "work"},
        {"node_id": "b", "type": "fail", "depends_on": ["a"]},
    ]
}
STREAM = {"nodes": [{"node_id": "a", "type": "batches", "io": {"input_inline": {"count": 3}}}]}

SKIPPING = {
    "nodes": [
        {
            "node_id": "a",
            "type": "picky",
            "io": {"input_inline": [1, 2, 3], "batching": {"size": 1}},
            "on_batch_failure": "skip",
        }
    ]
}


class Installation:
    """Store and bus that the command line finds at ``address``."""

    def __init__(self) -> None:
        self.address = f"memory://cli-{secrets.token_hex(6)}"

    def submit(self, graph: Any, **fields: Any) -> str:
        """Submit a task without running it."""
        return self.do(lambda client: client.create_task(graph=graph, **fields))

    def finish(self, graph: Any, **fields: Any) -> TaskView:
        """Submit a task and run it to its end."""

        async def main() -> TaskView:
            cfg = CoordinatorConfig(db=self.address)
            async with (
                Coordinator(cfg=cfg) as coordinator,
                Worker(cfg=WorkerConfig(db=self.address), handlers=[work, fail, batches, picky]),
            ):
                task_id = await coordinator.create_task(graph=graph, **fields)
                return await coordinator.wait(task_id, timeout=20)

        return anyio.run(main)

    def defer(self, graph: Any, **fields: Any) -> None:
        """Submit a task, and run it until one of its nodes is deferred."""

        async def main() -> None:
            cfg = CoordinatorConfig(db=self.address)
            async with (
                Coordinator(cfg=cfg) as coordinator,
                Worker(cfg=WorkerConfig(db=self.address), handlers=[fail]),
            ):
                task_id = await coordinator.create_task(graph=graph, **fields)
                events = coordinator.watch(task_id)
                while (await anext(events)).status != "deferred":
                    pass

        anyio.run(main)

    def do(self, use: Callable[[Client], Awaitable[Any]]) -> Any:
        """Call a function with a client."""

        async def main() -> Any:
            async with Client(cfg=CommonConfig(db=self.address)) as client:
                return await use(client)

        return anyio.run(main)
