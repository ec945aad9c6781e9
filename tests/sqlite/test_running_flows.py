"""Flows run with the store and the bus in one file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker, handler
from tests.builders import chain, graph, node, pull

pytestmark = pytest.mark.anyio

PATIENCE_SEC = 60.0
BATCHES = 30


@handler("work")
async def work(item: Any, ctx: RunContext) -> int:
    return 1 + sum(ctx.results.values())


class Produce(Handler):
    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for number in range(BATCHES):
            yield Batch(batch_uid=f"{number:03}", payload=number)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, metrics={"sum": batch.payload}, artifacts_ref={"n": batch.payload})


class Consume(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, metrics={"sum": batch.payload["meta"]["n"]})


@handler("collect")
async def collect(items: list[dict[str, int]]) -> dict[str, list[int]]:
    return {"window": [item["n"] for item in items]}


HANDLERS = {"work": work, "produce": Produce(), "consume": Consume(), "collect": collect}


@asynccontextmanager
async def installation(path: Path) -> AsyncIterator[Client]:
    """A coordinator and a worker on one file, and a client that opens it apart from them."""
    address = f"sqlite:///{path}"
    coordinator = Coordinator(
        db=address, cfg=CoordinatorConfig(bus=address, worker_types=list(HANDLERS))
    )
    worker = Worker(db=address, cfg=WorkerConfig(bus=address), handlers=HANDLERS)
    with anyio.fail_after(PATIENCE_SEC):
        async with coordinator, worker, Client(db=address, bus=address) as client:
            yield client


async def test_a_chain_passes_its_results_on(anyio_backend: str, path: Path) -> None:
    async with installation(path) as client:
        task_id = await client.create_task(graph=chain("work", "work", "work"))
        view = await client.wait(task_id)
        events = [event async for event in client.watch(task_id)]
    assert (view.status, view.result) == ("finished", {"n2": 3})
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_is_read_while_it_is_produced(anyio_backend: str, path: Path) -> None:
    io = {"start_when": "first_batch", "batching": {"size": 7}}
    reader = pull("reader", "consume", "source")
    reader["io"] |= {"parallel": 4, "max_ahead": 10}
    stream = graph(
        node("source", "produce"),
        reader,
        node("windows", "collect", "source", io=io),
    )
    async with installation(path) as client:
        task_id = await client.create_task(graph=stream)
        view = await client.wait(task_id)
        artifacts = [artifact async for artifact in client.artifacts(task_id, "source")]
        windows = [one.meta["window"] async for one in client.artifacts(task_id, "windows")]
    total = sum(range(BATCHES))
    assert view.status == "finished", view
    assert [view.nodes[name].metrics for name in ("source", "reader")] == [{"sum": total}] * 2
    assert [each.meta["n"] for each in artifacts if each.partial] == [*range(BATCHES)]
    assert windows == [[*range(n, min(n + 7, BATCHES))] for n in range(0, BATCHES, 7)]


async def test_tasks_go_on_after_a_restart_of_everything(anyio_backend: str, path: Path) -> None:
    address = f"sqlite:///{path}"
    async with Client(db=address, bus=address) as client:
        task_ids = [await client.create_task(graph=chain("work", "work")) for _ in range(5)]
    async with installation(path) as client:
        views = [await client.wait(task_id) for task_id in task_ids]
    async with installation(path) as client:
        again = [await client.get_task(task_id) for task_id in task_ids]
    assert [view.result for view in again] == [view.result for view in views] == [{"n1": 2}] * 5
