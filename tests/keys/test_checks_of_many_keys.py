"""Checks of the holders of many keys at a time."""

from collections.abc import Collection, Mapping

from flowkit._engine.key_places import Claimant, Holder, KeyState
from flowkit._records.key_records import key_change
from flowkit.protocols import TaskRecord
from flowkit_testing import Cluster, InMemoryStore

KEYS = 90


class CountedCalls(InMemoryStore):
    """Store that counts the calls that load tasks."""

    calls = 0

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        self.calls += 1
        return await super().load(task_ids)


async def test_the_tasks_that_hold_many_keys_are_loaded_together() -> None:
    store = CountedCalls()
    async with Cluster(store=store, coordinators=0) as cluster:
        now = cluster.clock.now()
        for number in range(KEYS):
            left = KeyState((Holder(Claimant(f"deleted{number}", 0, 1), now),))
            change = key_change(f"k{number}", left, "", op_id=f"{number}", due_at=now)
            await store.records.change([change])
        await cluster.add_coordinator()
        await cluster.clock.sleep(5)
        assert not await store.records.scan("key")
    assert store.calls < KEYS / 10
