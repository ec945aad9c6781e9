"""A stream that shards read on processes, one of which is killed."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from flowkit.worker import handler
from tests.builders import graph, node
from tests.services.processes import Processes, until
from tests.services.support import Installation

WITHIN_SEC = 90
BATCHES, SHARDS = 120, 3
QUICK_COORDINATOR = {
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 0.6,
    "heartbeat_hard_sec": 1.2,
    "lease_ttl_sec": 1.2,
}
QUICK_WORKER = {"hb_interval_sec": 0.2}


@handler("numbers")
async def numbers(item: Any) -> AsyncIterator[dict[str, int]]:
    for number in range(BATCHES):
        yield {"n": number}


async def read_while_a_worker_is_killed(installation: Installation, processes: Processes) -> None:
    """Read a stream by shards on two processes, and kill one of them in the middle."""
    io = {"start_when": "first_batch", "shards": SHARDS}
    policy = {"backoff_sec": 0.1}
    document = graph(
        node("source", "numbers"),
        node("reader", "reading", "source", io=io, retry_policy=policy),
    )
    async with (
        installation.coordinator(
            worker_types=["numbers", "reading"], **QUICK_COORDINATOR
        ) as coordinator,
        installation.worker([numbers], **QUICK_WORKER),
    ):
        victim = processes.worker(**QUICK_WORKER)
        other = processes.worker(**QUICK_WORKER)
        for process in (victim, other):
            await process.until("worker_started")
        task_id = await coordinator.create_task(graph=document)
        await until(lambda: len(processes.recorded("batch")) > BATCHES // 3)
        readers = {pid for *_, pid in processes.recorded("batch")}
        killed = victim if victim.pid in readers else other
        killed.kill()
        processes.open_gate()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        stored = [one async for one in coordinator.artifacts(task_id, "reader")]
    assert (view.status, view.nodes["reader"].attempt) == ("finished", 2)
    shards = [view.nodes[f"reader[{shard}]"] for shard in range(SHARDS)]
    assert {shard.attempt for shard in shards} <= {1, 2}
    found = Counter((one.meta["numbers"][0], int(one.uid.split("/")[0])) for one in stored)
    assert found == Counter((number, number % SHARDS) for number in range(BATCHES))
