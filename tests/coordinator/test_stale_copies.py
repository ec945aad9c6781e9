"""Coordinators that hold an old version of a task."""

import secrets
from typing import Any

from flowkit import Coordinator, CoordinatorConfig
from flowkit._engine import CancelRequested, RetryRequested
from flowkit._records.queries import load_task
from flowkit.messages import NodeStarted, NodeSucceeded
from tests.builders import TWO, graph, node


async def report(coordinator: Coordinator, task_id: str, kind: Any, index: int, **more: Any) -> Any:
    """Return a report of the latest attempt of a node."""
    task = await load_task(coordinator.store, task_id)
    record = task.records.get(index)
    attempt = 1 if record is None else record.attempt
    return kind(
        task_id=task_id,
        index=index,
        attempt=attempt,
        token=task.spec.token(index, attempt, 0),
        worker_id="w",
        at=2,
        **more,
    )


async def apply(coordinator: Coordinator, task_id: str, event: Any) -> None:
    await coordinator._scheduler.processor.apply({task_id: [event]})


async def test_a_report_that_an_older_copy_would_ignore_counts_for_the_task_as_it_is() -> None:
    cfg = CoordinatorConfig(db=f"memory://{secrets.token_hex(6)}")
    async with Coordinator(cfg=cfg) as one, Coordinator(cfg=cfg) as other:
        task_id = await one.create_task(graph=TWO)
        await other._scheduler.processor.refresh([task_id])
        for index, coordinator in ((0, one), (1, other)):
            event = await report(one, task_id, NodeSucceeded, index, started_at=1)
            await apply(coordinator, task_id, event)
        assert (await one.get_task(task_id)).status == "finished"


async def test_a_start_that_an_older_copy_would_cancel_counts_for_the_task_as_it_is() -> None:
    cfg = CoordinatorConfig(db=f"memory://{secrets.token_hex(6)}")
    async with Coordinator(cfg=cfg) as one, Coordinator(cfg=cfg) as other:
        task_id = await one.create_task(graph=graph(node("a"), node("b")))
        await apply(one, task_id, await report(one, task_id, NodeStarted, 1))
        await apply(one, task_id, CancelRequested())
        await other._scheduler.processor.refresh([task_id])
        await apply(one, task_id, await report(one, task_id, NodeSucceeded, 1, started_at=1))
        await apply(one, task_id, RetryRequested())
        await apply(other, task_id, await report(one, task_id, NodeStarted, 0))
        assert (await one.get_task(task_id)).nodes["a"].status == "running"
