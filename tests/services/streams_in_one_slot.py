"""A stream whose nodes share the only slot of one worker."""

from collections.abc import AsyncIterator
from typing import Any

from flowkit.errors import NodeFailure
from flowkit.worker import RunContext, handler
from tests.builders import graph, node
from tests.services.support import Installation

WITHIN_SEC = 30
BATCHES = 12


@handler("numbers")
async def numbers(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
    """Yield numbers. The first attempt fails after some of them."""
    for number in range(BATCHES):
        if ctx.attempt == 1 and number == BATCHES // 2:
            raise NodeFailure("not at once")
        yield {"n": number}


@handler("same")
async def same(item: dict[str, int]) -> dict[str, int]:
    return item


async def read_in_one_slot(installation: Installation) -> None:
    """Read a stream whose producer is retried, and whose shards have an end, with one slot."""
    reads = {"start_when": "first_batch", "max_ahead": 2}
    document = graph(
        node("source", "numbers", retry_policy={"backoff_sec": 0.5}),
        node("middle", "same", "source", io=reads | {"shards": 2}),
        node("last", "same", "middle", io=reads),
    )
    async with (
        installation.coordinator(
            worker_types=["numbers", "same"], scheduler_tick_sec=0.5
        ) as coordinator,
        installation.worker([numbers, same], max_concurrency=1),
    ):
        task_id = await coordinator.create_task(graph=document)
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        stored = [one.meta["n"] async for one in coordinator.artifacts(task_id, "last")]
    assert (view.status, view.nodes["source"].attempt) == ("finished", 2)
    assert sorted(stored) == list(range(BATCHES))
