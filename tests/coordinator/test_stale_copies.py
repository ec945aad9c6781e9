"""Coordinators that hold an old version of a task."""

import secrets

from flowkit import Coordinator, CoordinatorConfig
from flowkit._records.queries import load_task
from flowkit.messages import NodeSucceeded
from tests.builders import TWO


async def test_a_report_that_an_older_copy_would_ignore_counts_for_the_task_as_it_is() -> None:
    cfg = CoordinatorConfig(db=f"memory://{secrets.token_hex(6)}")
    async with Coordinator(cfg=cfg) as one, Coordinator(cfg=cfg) as other:
        task_id = await one.create_task(graph=TWO)
        await other._scheduler.processor.refresh([task_id])
        for index, coordinator in ((0, one), (1, other)):
            task = await load_task(one.store, task_id)
            token = task.spec.token(index, 1, 0)
            report = NodeSucceeded(
                task_id=task_id,
                index=index,
                attempt=1,
                token=token,
                worker_id="w",
                started_at=1,
                at=2,
            )
            await coordinator._scheduler.processor.apply({task_id: [report]})
        assert (await one.get_task(task_id)).status == "finished"
