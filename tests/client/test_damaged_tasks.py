"""The search for tasks that the store reads, and FlowKit cannot decode."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowkit._records.damaged_tasks import PAGE, SEARCH_SEC, damaged_tasks
from flowkit.cli._task_checks import check_tasks
from flowkit.plugins import Plugins
from flowkit.protocols import DamagedRecord, TaskQuery, TaskRecord
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.builders import TWO

DAMAGE: Mapping[str, Mapping[str, Any]] = {
    "spec": {"spec": b"x"},
    "parts": {"parts": {}},
    "bytes": {"fault": "its bytes are gone"},
}


class DamagedStore(InMemoryStore):
    """A store with damaged tasks, which finds a record of one of them itself."""

    damage: Mapping[str, Mapping[str, Any]] = {}

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        found = await super().load(task_ids)
        return {
            name: replace(record, **self.damage.get(name, {})) for name, record in found.items()
        }

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        return [DamagedRecord("table", "row", "no number", "bytes")][:limit]


async def test_tasks_that_cannot_be_decoded_are_listed_after_what_the_store_finds() -> None:
    store = DamagedStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        for name in ("whole", *DAMAGE):
            await cluster.client.create_task(graph=TWO, task_id=name)
            await cluster.clock.sleep(1)
        store.damage = DAMAGE
        found = await cluster.client.damaged_records()
        assert [(record.place, record.record_id, record.task_id) for record in found] == [
            ("table", "row", "bytes"),
            ("task", "parts", "parts"),
            ("task", "spec", "spec"),
        ]
        assert all(
            record.fault.startswith(f"the record of task {record.task_id!r} cannot be read: ")
            for record in found[1:]
        )
        assert await cluster.client.damaged_records(limit=2) == found[:2]


async def test_doctor_says_which_tasks_cannot_be_read(flowkit_clock: ManualClock) -> None:
    store = DamagedStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="whole")
        (result,) = await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock)
        assert (result.ok, result.detail) == (True, "1 read, none is damaged")
        await cluster.client.create_task(graph=TWO, task_id="bytes")
        store.damage = DAMAGE
        (result,) = await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock)
        assert (result.name, result.ok, result.detail) == (
            "tasks",
            False,
            "2 read, 1 damaged: the record of task 'bytes' cannot be read: its bytes are gone",
        )


async def test_the_search_ends_at_its_time_limit(flowkit_clock: ManualClock) -> None:
    class Slow(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            await flowkit_clock.sleep(SEARCH_SEC / 2)
            return await super().list_tasks(query)

    async with Cluster(store=Slow(), coordinators=0, clock=flowkit_clock) as cluster:
        for _ in range(2 * PAGE + 1):
            await cluster.client.create_task(graph=TWO)
        search = await damaged_tasks(cluster.store, limit=9, monotonic=flowkit_clock.monotonic)
        assert (search.read, search.in_time) == (2 * PAGE, False)
        assert (
            "read in 5 s"
            in (await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock))[0].detail
        )
