"""A client that watches a task sees each of its changes in order, even if it reads slowly."""

from typing import Any

import pytest

from flowkit.errors import TaskNotFound
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster

LENGTH = 300


@handler("work")
async def work(item: Any, ctx: RunContext) -> None:
    await ctx.clock.sleep(0.05)


@pytest.mark.parametrize("every", [1, 17, 50, 400])
async def test_a_reader_that_lags_behind_the_archive_misses_nothing(every: int) -> None:
    chain = [
        {"node_id": f"n{i}", "type": "work", "depends_on": [f"n{i - 1}"] if i else []}
        for i in range(LENGTH)
    ]
    async with Cluster(handlers=[work]) as cluster:
        task_id = await cluster.client.create_task(graph={"nodes": chain})
        numbers: list[int] = []
        async for event in cluster.client.watch(task_id):
            numbers.append(event.seq)
            if len(numbers) % every == 0:
                await cluster.clock.sleep(0.1 * every)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 3 * LENGTH


@pytest.mark.parametrize("after", [0, 1, 450, 899, 5_000])
async def test_a_reader_goes_on_after_the_last_event_that_it_has_read(after: int) -> None:
    chain = [
        {"node_id": f"n{i}", "type": "work", "depends_on": [f"n{i - 1}"] if i else []}
        for i in range(LENGTH)
    ]
    async with Cluster(handlers=[work]) as cluster:
        task_id = (await cluster.run({"nodes": chain})).id
        every = [event async for event in cluster.client.watch(task_id)]
        rest = [event async for event in cluster.client.watch(task_id, after=after)]
    assert rest == every[after:]


async def test_the_events_until_now_come_in_pages_of_a_task_or_of_one_node() -> None:
    async with Cluster(handlers=[work]) as cluster:
        chain = [
            {"node_id": f"n{i}", "type": "work", "depends_on": [f"n{i - 1}"] if i else []}
            for i in range(LENGTH)
        ]
        task_id = (await cluster.run({"nodes": chain})).id
        client = cluster.client
        every = [event async for event in client.watch(task_id)]
        assert (await client.get_task(task_id)).seq == every[-1].seq
        found, after = [], None
        while True:
            page = await client.events(task_id, limit=400, after=after)
            found += page.items
            after = page.next
            if after is None:
                break
        assert found == every
        of_one = await client.events(task_id, node_id="n7", limit=2)
        expected = [event for event in every if event.node_id == "n7"]
        assert of_one.items == expected[:2]
        rest = await client.events(task_id, node_id="n7", after=of_one.next)
        assert (rest.items, rest.next) == (expected[2:], None)
        with pytest.raises(TaskNotFound, match="'other'"):
            await client.events(task_id, node_id="other")
        with pytest.raises(ValueError, match="invalid page cursor 'x'"):
            await client.events(task_id, after="x")
