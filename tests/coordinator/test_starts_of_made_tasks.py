"""Tasks that may have been stored before: of schedules, and with an idempotency key."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from flowkit import CoordinatorConfig, Schedule
from flowkit.errors import StoreUnavailable
from flowkit.messages import TaskTouched, decode
from flowkit.protocols import Message, Place, TaskRecord
from flowkit.task import TaskStatus
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import ONE, work


class HintedBus(InMemoryBus):
    """Counts the hints that tasks have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.hints = 0

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.hints += sum(isinstance(decode(one.value), TaskTouched) for one in messages)
        return await super().publish(messages)


class LosingStore(InMemoryStore):
    """Cannot be read once, when ``loses`` is set."""

    loses = False

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        if self.loses:
            self.loses = False
            raise StoreUnavailable("away")
        return await super().load(task_ids)


async def test_a_coordinator_starts_the_tasks_of_its_schedules_without_hints() -> None:
    bus = HintedBus()
    async with Cluster(bus=bus, handlers=[work]) as cluster:
        at = cluster.clock.now_dt() + timedelta(seconds=60)
        await cluster.client.put_schedule(Schedule("s", graph=ONE, at=at))
        await cluster.clock.sleep(59)
        bus.hints = 0
        await cluster.clock.sleep(5)
        (made,) = (await cluster.client.list_tasks()).items
        assert (made.status, bus.hints) == (TaskStatus.FINISHED, 0)


async def test_a_task_that_cannot_be_read_after_it_was_stored_starts_at_the_next_sweep() -> None:
    config, store = CoordinatorConfig(), LosingStore()
    async with Cluster(store=store, handlers=[work], coordinator_config=config) as cluster:
        store.loses = True
        (coordinator,) = cluster.coordinators
        task_id = await coordinator.create_task(graph=ONE, idempotency_key="k")
        view = await coordinator.wait(task_id, timeout=600)
    assert view.status is TaskStatus.FINISHED
    assert not store.loses
