"""Queues: the nodes that wait for a worker."""

from flowkit.client._queues import MOST_TASKS
from flowkit.protocols import utc
from flowkit_testing import Cluster
from tests.builders import graph, node, work

GPU = graph(node("a", "gpu"), node("b", "gpu"), node("c", "work"), node("d", "gpu", "a"))


async def test_waiting_nodes_are_counted_by_role_with_the_first_time() -> None:
    async with Cluster(workers=0) as cluster:
        began = cluster.clock.now()
        await cluster.client.create_task(graph=GPU)
        await cluster.clock.sleep(60)
        await cluster.client.create_task(graph=GPU)
        await cluster.clock.sleep(60)
        gpu, other = await cluster.client.queues()
    assert (gpu.role, gpu.waiting, gpu.oldest_at) == ("gpu", 4, utc(began))
    assert (other.role, other.waiting, other.oldest_at) == ("work", 2, utc(began))


async def test_a_node_that_has_started_or_ended_does_not_wait() -> None:
    async with Cluster(handlers=[work]) as cluster:
        task_id = await cluster.client.create_task(graph=GPU)
        async for event in cluster.client.watch(task_id):
            if event.node_id == "c" and event.status == "finished":
                break
        (gpu,) = await cluster.client.queues()
    assert (gpu.role, gpu.waiting) == ("gpu", 2)


async def test_of_many_tasks_the_oldest_count() -> None:
    async with Cluster(workers=0) as cluster:
        began = cluster.clock.now()
        await cluster.client.create_task(graph=graph(node("a", "first")))
        await cluster.clock.sleep(1)
        for _ in range(MOST_TASKS - 1):
            await cluster.client.create_task(graph=graph(node("a", "later")))
        assert [queue.limited for queue in await cluster.client.queues()] == [False, False]
        await cluster.client.create_task(graph=graph(node("a", "later")))
        first, later = await cluster.client.queues()
    assert (first.role, first.waiting, first.oldest_at) == ("first", 1, utc(began))
    assert (later.role, later.waiting) == ("later", MOST_TASKS - 1)
    assert (first.limited, later.limited) == (True, True)


async def test_a_damaged_task_does_not_hide_the_others() -> None:
    async with Cluster(workers=0) as cluster:
        await cluster.client.create_task(graph=GPU, task_id="damaged")
        await cluster.client.create_task(graph=GPU, task_id="whole")
        row = cluster.store._tasks.rows["damaged"]
        row.parts = dict.fromkeys(row.parts, b"damaged")
        gpu, _ = await cluster.client.queues()
    assert gpu.waiting == 2
