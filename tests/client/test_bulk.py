"""Cancellations and retries of all tasks that match, on a cluster in virtual time."""

import logging
from typing import Any

import pytest

from flowkit.errors import TaskRefused
from flowkit.task import BulkProgress
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import graph, node
from tests.store_records import task

NAP = node("nap", "sleep", io={"for_sec": 600})
repaired: list[bool] = []


@handler("odd")
async def odd(item: Any) -> Any:
    if not repaired:
        raise ValueError("not yet")


async def submit(cluster: Cluster, count: int, *nodes: Any, **fields: Any) -> list[str]:
    flow = graph(*nodes)
    return [await cluster.client.create_task(graph=flow, **fields) for _ in range(count)]


async def statuses(cluster: Cluster, *task_ids: str) -> set[str]:
    return {str((await cluster.client.get_task(task_id)).status) for task_id in task_ids}


async def test_all_matching_tasks_are_cancelled_and_counted_over_many_pages() -> None:
    async with Cluster() as cluster:
        matching = await submit(cluster, 120, NAP, pipeline="p", labels={"team": "a"})
        others = await submit(cluster, 3, NAP, pipeline="q", labels={"team": "a"})
        await cluster.client.cancel(matching[0])
        seen: list[BulkProgress] = []
        done = await cluster.client.cancel_tasks(
            pipeline="p", labels={"team": "a"}, reason="enough", on_progress=seen.append
        )
        assert done == 119
        assert [(one.found, one.changed) for one in seen] == [(50, 50), (100, 100), (119, 119)]
        assert await statuses(cluster, *matching) == {"cancelled"}
        assert await statuses(cluster, *others) == {"deferred"}
        assert (await cluster.client.get_task(matching[5])).error == "enough"
        assert await cluster.client.cancel_tasks(pipeline="p") == 0
        assert await cluster.coordinators[0].cancel_tasks(waiting="timer") == 3


async def test_failed_and_cancelled_tasks_are_retried_and_no_others() -> None:
    repaired.clear()
    async with Cluster(handlers=[odd]) as cluster:
        failed = await submit(cluster, 3, node("a", "odd"), pipeline="p")
        waiting = await submit(cluster, 2, NAP, pipeline="p")
        for task_id in failed:
            await cluster.client.wait(task_id)
        await cluster.client.cancel(waiting[0])
        repaired.append(True)
        assert await cluster.client.retry_tasks(pipeline="p", reason_code="bad_input") == 3
        for task_id in failed:
            assert (await cluster.client.wait(task_id)).status == "finished"
        assert await cluster.client.retry_tasks(pipeline="p") == 1
        seen: list[BulkProgress] = []
        for verb in (cluster.client.retry_tasks, cluster.client.cancel_tasks):
            assert await verb(pipeline="p", status="finished", on_progress=seen.append) == 0
        assert seen == [], "ended tasks were read"
        assert await statuses(cluster, *waiting) == {"deferred"}


async def test_a_task_that_cannot_be_changed_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repaired.clear()
    inner = {"nodes": [node("x", "odd")]}
    async with Cluster(handlers=[odd]) as cluster:
        (parent,) = await submit(cluster, 1, node("s", "subflow", io={"graph": inner}))
        child = (await cluster.client.wait(parent)).nodes["s"].child_task_id
        await cluster.store.create([task("damaged", spec=b"{}", status="failed")])
        seen: list[BulkProgress] = []
        assert await cluster.client.retry_tasks(status="failed", on_progress=seen.append) == 1
        assert seen[-1].found == 3
        assert seen[-1].refused.keys() == {"damaged", child}
        assert "cannot be read" in seen[-1].refused["damaged"]
        assert "and that node has ended; retry the task" in seen[-1].refused[str(child)]
        with caplog.at_level(logging.WARNING, "flowkit.client"):
            await cluster.client.retry_tasks(status="failed")
        assert caplog.text.count("Task damaged was not changed: the record of task") == 1
        await cluster.store.create([task("open", spec=b"{}", status="paused")])
        assert await cluster.client.cancel_tasks(status="paused", on_progress=seen.append) == 0
        assert "cannot be read" in seen[-1].refused["open"]


async def test_at_least_one_filter_is_given() -> None:
    async with Cluster() as cluster:
        for verb in (cluster.client.cancel_tasks, cluster.client.retry_tasks):
            with pytest.raises(ValueError, match="give at least one filter: status, pipeline, lab"):
                await verb()
            with pytest.raises(ValueError, match="give at least one filter"):
                await verb(status=[], labels={})
            with pytest.raises(ValueError, match="waiting is one of"):
                await verb(waiting="lunch")
        with pytest.raises(TaskRefused, match="reason"):
            await cluster.client.cancel_tasks(pipeline="p", reason="x" * 2_000)


async def test_a_call_that_was_interrupted_is_repeated() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(progress: BulkProgress) -> None:
        raise Interrupted

    async with Cluster() as cluster:
        task_ids = await submit(cluster, 70, NAP, pipeline="p")
        with pytest.raises(Interrupted):
            await cluster.client.cancel_tasks(pipeline="p", on_progress=interrupt)
        assert await statuses(cluster, *task_ids) == {"cancelled", "deferred"}
        assert await cluster.client.cancel_tasks(pipeline="p") == 20
        assert await statuses(cluster, *task_ids) == {"cancelled"}
