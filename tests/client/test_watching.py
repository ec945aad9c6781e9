"""A client that watches a task sees each of its changes in order, even if it reads slowly."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from pydantic_core import to_json

from flowkit import TaskEvent
from flowkit._records.history import HistoryReader
from flowkit.errors import TaskNotFound
from flowkit.protocols import ArchivedPart
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.counting_store import CountingStore
from tests.store_records import NOON, change, task

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
        assert await in_pages(cluster, task_id) == every
        assert await in_pages(cluster, task_id, newest_first=True) == every[::-1]
        of_one = await client.events(task_id, node_id="n7", limit=2)
        expected = [event for event in every if event.node_id == "n7"]
        assert of_one.items == expected[:2]
        rest = await client.events(task_id, node_id="n7", after=of_one.next)
        assert (rest.items, rest.next) == (expected[2:], None)
        newest = await client.events(task_id, node_id="n7", limit=1, newest_first=True)
        assert newest.items == expected[-1:]
        older = await client.events(task_id, node_id="n7", after=newest.next, newest_first=True)
        assert (older.items, older.next) == (expected[-2::-1], None)
        with pytest.raises(TaskNotFound, match="'other'"):
            await client.events(task_id, node_id="other")
        with pytest.raises(ValueError, match="invalid page cursor 'x'"):
            await client.events(task_id, after="x")


async def in_pages(cluster: Cluster, task_id: str, **order: bool) -> list[TaskEvent]:
    found: list[TaskEvent] = []
    after: str | None = ""
    while after is not None:
        page = await cluster.client.events(task_id, limit=400, after=after or None, **order)
        found += page.items
        after = page.next
    return found


class Counted(InMemoryStore):
    """Store that counts the parts of the archive that are read."""

    parts = 0

    async def scan_archive(self, task_id: str, **scan: Any) -> Sequence[tuple[str, bytes]]:
        found = await super().scan_archive(task_id, **scan)
        self.parts += len(found)
        return found


@pytest.mark.parametrize("seq", [0, 999, 5_000, 123_456, 200_024, 200_049])
async def test_of_a_long_history_only_what_comes_after_a_change_is_read(seq: int) -> None:
    size, last = 25, 200_050
    log = to_json([(NOON, -1, "progress", None, None)] * size)
    archive = [ArchivedPart(f"e{first:010d}", 1, log) for first in range(1, last, size)]
    async with Counted() as store:
        await store.create([task("t")])
        await store.commit([change("t", archive=archive)])
        record = (await store.load(["t"]))["t"]
        numbers: list[int] = []
        async with aclosing(HistoryReader(store, seq).read(record, last)) as entries:
            async for number, _ in entries:
                numbers.append(number)
                if len(numbers) == size:
                    break
    assert numbers == list(range(seq + 1, last + 1))[:size]
    assert store.parts < 1_200


async def test_those_who_follow_one_task_read_each_change_of_it_together() -> None:
    store, watchers, length = CountingStore(), 20, 10
    chain = [
        {"node_id": f"n{i}", "type": "work", "depends_on": [f"n{i - 1}"] if i else []}
        for i in range(length)
    ]
    seen: list[list[TaskEvent]] = [[] for _ in range(watchers)]

    async def follow(task_id: str, events: list[TaskEvent]) -> None:
        async for event in cluster.client.watch(task_id):
            events.append(event)

    async with Cluster(handlers=[work], store=store) as cluster, anyio.create_task_group() as group:
        task_id = await cluster.client.create_task(graph={"nodes": chain})
        for events in seen:
            group.start_soon(follow, task_id, events)
    assert all(events == seen[0] for events in seen)
    assert len(seen[0]) > 3 * length
    assert store.loads[task_id] < 5 * watchers
