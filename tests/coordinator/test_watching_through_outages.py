"""Workers are not lost while the store is unavailable: its outage hides all heartbeats."""

from collections.abc import Sequence

import pytest

from flowkit import CoordinatorConfig
from flowkit.coordinator._worker_watch import WorkerWatch
from flowkit.errors import StoreUnavailable
from flowkit.protocols import WorkerSession
from flowkit_testing import InMemoryStore, ManualClock

CONFIG = CoordinatorConfig(heartbeat_soft_sec=10, heartbeat_hard_sec=20)
LOOK_SEC = 10 / 3


class StoreWithOutages(InMemoryStore):
    """A store that can be unavailable."""

    away = False

    async def sessions(self) -> Sequence[WorkerSession]:
        if self.away:
            raise StoreUnavailable("it is away")
        return await super().sessions()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> StoreWithOutages:
    return StoreWithOutages()


@pytest.fixture
def watch(store: StoreWithOutages, clock: ManualClock) -> WorkerWatch:
    return WorkerWatch(store=store, clock=clock, config=CONFIG)


async def renewed(store: StoreWithOutages, beat: int) -> None:
    await store.renew_session(WorkerSession("w", ("work",), beat, started_at=0))


async def looked_for(watch: WorkerWatch, clock: ManualClock, seconds: float) -> list[str]:
    """Watch for this number of seconds, and return the workers that were lost in the end."""
    lost: list[str] = []
    for _ in range(round(seconds / LOOK_SEC)):
        await clock.advance(LOOK_SEC)
        lost = await watch.lost_workers()
    return lost


async def outage(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock, seconds: float
) -> None:
    store.away = True
    for _ in range(round(seconds / LOOK_SEC)):
        await clock.advance(LOOK_SEC)
        with pytest.raises(StoreUnavailable):
            await watch.lost_workers()
    store.away = False


async def test_a_worker_is_not_lost_by_an_outage_of_the_store(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    await outage(watch, store, clock, 60)
    assert await looked_for(watch, clock, LOOK_SEC) == []
    await renewed(store, 2)
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == []


async def test_the_silence_before_an_outage_and_after_it_counts(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == []
    await outage(watch, store, clock, 60)
    assert await looked_for(watch, clock, LOOK_SEC) == []
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == ["w"]


async def test_without_an_outage_a_silent_worker_is_lost_in_time(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    assert await looked_for(watch, clock, 5 * LOOK_SEC) == []
    assert await looked_for(watch, clock, LOOK_SEC) == ["w"]
