"""A reader that crashes in the middle of a stream."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker
from flowkit_testing import Cluster

pytestmark = pytest.mark.no_cover

READER: dict[str, Any] = {
    "start_when": "first_batch",
    "input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}},
}


class Write(Handler):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    async def iter_batches(self, loaded: dict[str, Any]) -> AsyncIterator[Batch]:
        for number in range(self.batches):
            yield Batch(batch_uid=str(number), payload=None)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(success=True, artifacts_ref={"n": int(batch.batch_uid)})


class Read(Handler):
    """A handler that records its input; it sets ``half`` after half of the stream."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.read: Counter[int] = Counter()
        self.half = anyio.Event()

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.read[batch.payload["meta"]["n"]] += 1
        if len(self.read) == self.batches // 2:
            self.half.set()
        return BatchResult(success=True, metrics={"n": 1})


async def crash(worker: Worker) -> None:
    assert worker._service is not None
    worker._service.host.cancel()
    await asyncio.wait([worker._service.host])


@pytest.mark.parametrize("batches", [250, 100_000])
async def test_a_stream_is_read_to_its_end_after_a_crash_in_the_middle(batches: int) -> None:
    """The large stream is slow: it takes some ten seconds."""
    write, read = Write(batches), Read(batches)
    async with Cluster(
        coordinator_config=CoordinatorConfig(), worker_config=WorkerConfig()
    ) as cluster:
        await cluster.add_worker({"write": write})
        victim = await cluster.add_worker({"read": read})

        async def kill() -> None:
            await read.half.wait()
            cluster.workers.remove(victim)
            await crash(victim)
            await cluster.add_worker({"read": read})

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            nodes = [
                {"node_id": "w", "type": "write"},
                {"node_id": "r", "type": "read", "depends_on": ["w"], "io": READER},
            ]
            view = await cluster.run({"nodes": nodes}, timeout=3600)
    assert (view.status, view.nodes["r"].attempt, view.nodes["w"].attempt) == ("finished", 2, 1)
    assert len(read.read) == batches
    # Only the batches in progress at the crash are read again.
    assert read.read.total() - batches < 1000
