"""Ends of tasks that a coordinator knows without reading them again."""

from collections.abc import AsyncIterator

import anyio
import pytest

from flowkit._records.task_records import decode_task
from flowkit._tasks.cached_tasks import SettledTasks
from flowkit.errors import NodeFailure, TaskNotFound
from flowkit.worker import handler
from flowkit_testing import Cluster
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.builders import ONE, TWO, graph, node
from tests.counting_store import CountingStore


@handler("work")
async def work(item: object) -> dict[str, list[int]]:
    return {"n": [1]}


@pytest.mark.parametrize("late", [False, True])
async def test_a_wait_in_the_process_that_ended_the_task_reads_no_record(late: bool) -> None:
    store = CountingStore()
    async with Cluster(store=store, handlers=[work]) as cluster:
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=TWO, params={"a": [1]}, labels={"b": "c"})
        if late:
            await cluster.client.wait(task_id)
        loads = store.loads[task_id]
        view = await coordinator.wait(task_id)
        assert store.loads[task_id] == loads
        assert view == await cluster.client.get_task(task_id)


async def test_what_a_caller_changes_in_a_view_does_not_show_in_the_next_one() -> None:
    async with Cluster(handlers=[work]) as cluster:
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=ONE)
        views = []
        async with anyio.create_task_group() as group:

            async def wait_and_change() -> None:
                view = await coordinator.wait(task_id)
                view.result["a"]["n"].append(2)
                views.append(view)

            group.start_soon(wait_and_change)
            group.start_soon(wait_and_change)
        views.append(await coordinator.wait(task_id))
        assert [view.result["a"]["n"] for view in views] == [[1, 2], [1, 2], [1]]


async def test_a_failed_task_that_another_process_retries_is_awaited_again() -> None:
    repaired = False

    @handler("work")
    async def fails(item: object) -> None:
        if not repaired:
            raise NodeFailure("not yet", permanent=True)

    async with Cluster(handlers=[fails]) as cluster:
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=ONE)
        await cluster.client.wait(task_id)
        repaired = True
        await cluster.client.retry(task_id)
        assert (await coordinator.wait(task_id)).status == "finished"


async def test_a_finished_task_whose_batch_another_process_redrives_is_awaited_again() -> None:
    repaired = False

    @handler("rows")
    async def rows(item: object) -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}

    @handler("load")
    async def load(row: dict[str, int]) -> dict[str, int]:
        if not repaired:
            raise ValueError("bad row")
        return row

    flow = graph(
        node("rows", "rows"),
        node("load", "load", io={"start_when": "first_batch"}, on_batch_failure="skip"),
        edges_ex=[{"from": "rows", "to": "load", "trigger": "on_batch"}],
    )
    async with Cluster(handlers=[rows, load]) as cluster:
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=flow)
        assert (await cluster.client.wait(task_id)).nodes["load"].skipped_batches == 1
        (letter,) = (await cluster.client.dead_letters()).items
        repaired = True
        await cluster.client.retry_dead_letters([letter.letter_id])
        assert (await coordinator.wait(task_id)).nodes["load"].skipped_batches == 0


async def test_the_end_of_a_purged_task_is_forgotten() -> None:
    config = UNHURRIED_COORDINATOR.model_copy(update={"finished_retention_sec": 5.0})
    async with Cluster(handlers=[work], coordinator_config=config) as cluster:
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=ONE)
        await cluster.client.wait(task_id)
        await cluster.clock.sleep(6)
        await cluster.store.purge(finished_before=cluster.clock.now())
        with pytest.raises(TaskNotFound):
            await coordinator.wait(task_id)


async def test_a_new_task_with_the_id_of_a_purged_one_is_awaited() -> None:
    async with Cluster(handlers=[work]) as cluster:
        (coordinator,) = cluster.coordinators
        await coordinator.create_task(graph=ONE, task_id="t", labels={"is": "old"})
        await cluster.client.wait("t")
        await cluster.clock.sleep(1)
        await cluster.store.purge(finished_before=cluster.clock.now())
        await coordinator.create_task(graph=ONE, task_id="t", labels={"is": "new"})
        assert (await coordinator.wait("t")).labels == {"is": "new"}


async def test_the_oldest_ends_are_forgotten_above_a_limit() -> None:
    async with Cluster(handlers=[work]) as cluster:
        ids = [(await cluster.run(one)).id for one in (ONE, TWO, ONE)]
        records = await cluster.store.load(ids)
        settled = SettledTasks(keep_sec=10, max_nodes=3)
        for task_id in ids:
            settled.add(decode_task(records[task_id]))
        kept = [settled.pop(task_id, cluster.clock.now()) for task_id in ids]
    assert [task is not None for task in kept] == [False, True, True]
