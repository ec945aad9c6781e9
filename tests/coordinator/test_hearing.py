"""A coordinator knows since when no outage delays the reports of workers."""

import anyio
import pytest

from flowkit import CoordinatorConfig
from flowkit.coordinator._hearing import Hearing
from flowkit.coordinator._worker_watch import WorkerWatch
from flowkit.errors import StoreUnavailable
from flowkit.protocols import RecordChange
from flowkit_testing import ManualClock
from tests.coordinator.test_watching_through_outages import StoreWithOutages

CONFIG = CoordinatorConfig(heartbeat_soft_sec=9, heartbeat_hard_sec=20)
PAUSE_SEC = 3.0


class SlowStore(StoreWithOutages):
    """A store whose changes may take long."""

    takes_sec = 0.0

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    async def before_change(self, change: RecordChange) -> None:
        await super().before_change(change)
        if self.takes_sec:
            await self._clock.sleep(self.takes_sec)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> SlowStore:
    return SlowStore(clock)


@pytest.fixture
def watch(store: SlowStore, clock: ManualClock) -> WorkerWatch:
    return WorkerWatch(store=store, clock=clock, config=CONFIG, coordinator_id="c")


async def nothing() -> None:
    pass


@pytest.fixture
def hearing(watch: WorkerWatch, clock: ManualClock) -> Hearing:
    return Hearing(watch=watch, clock=clock, longest_sec=20, read_reports=nothing)


async def renewed(watch: WorkerWatch, clock: ManualClock, count: int) -> None:
    for _ in range(count):
        await clock.advance(PAUSE_SEC)
        await watch.lost_workers()


async def test_workers_are_heard_since_the_start_while_sessions_are_renewed_in_time(
    watch: WorkerWatch, hearing: Hearing, clock: ManualClock
) -> None:
    began = clock.now()
    await renewed(watch, clock, 10)
    await hearing.prove()
    assert hearing.since == began


async def test_workers_are_heard_from_a_renewal_on_that_came_late(
    watch: WorkerWatch, hearing: Hearing, clock: ManualClock
) -> None:
    """The process was suspended, or too busy."""
    await renewed(watch, clock, 1)
    await clock.advance(3 * PAUSE_SEC)
    await watch.lost_workers()
    late = clock.now()
    await renewed(watch, clock, 3)
    assert hearing.since == late


async def test_workers_are_heard_from_a_renewal_on_that_took_long(
    watch: WorkerWatch, hearing: Hearing, store: SlowStore, clock: ManualClock
) -> None:
    """It has waited for the end of an outage."""
    await renewed(watch, clock, 1)
    store.takes_sec = 1.5
    async with anyio.create_task_group() as group:
        group.start_soon(watch.lost_workers)
        await clock.advance(1.5)
    store.takes_sec = 0.0
    slow = clock.now()
    await renewed(watch, clock, 3)
    assert hearing.since == slow


async def test_workers_are_heard_from_the_first_renewal_on_after_one_that_failed(
    watch: WorkerWatch, hearing: Hearing, store: SlowStore, clock: ManualClock
) -> None:
    await renewed(watch, clock, 1)
    store.full = True
    with pytest.raises(StoreUnavailable):
        await watch.lost_workers()
    store.full = False
    await clock.advance(1)
    await watch.lost_workers()
    assert hearing.since == clock.now()


async def test_workers_are_heard_from_a_proof_on_that_failed(
    watch: WorkerWatch, hearing: Hearing, store: SlowStore, clock: ManualClock
) -> None:
    await renewed(watch, clock, 3)
    store.full = True
    await hearing.prove()
    assert hearing.since == clock.now()
