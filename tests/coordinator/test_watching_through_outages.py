"""Workers are not lost while the store is unavailable: its outage hides all heartbeats.

They are not lost while it can be read and accepts no changes either, as on a full disk.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.coordinator._worker_watch import WorkerWatch
from flowkit.errors import StoreUnavailable
from flowkit.protocols import Commit, RecordChange
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.hooked_store import HookedStore
from tests.store_records import put_session

CONFIG = CoordinatorConfig(heartbeat_soft_sec=10, heartbeat_hard_sec=20)
LOOK_SEC = 10 / 3


class StoreWithOutages(HookedStore):
    """A store that can be away, or accept no changes."""

    away = full = False

    async def before_read(self, kind: str) -> None:
        if self.away:
            raise StoreUnavailable("it is away")

    async def before_change(self, change: RecordChange) -> None:
        if self.away or self.full:
            raise StoreUnavailable("it accepts no changes")

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        if self.away or self.full:
            raise StoreUnavailable("it accepts no changes")
        return await super().commit(commits)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> StoreWithOutages:
    return StoreWithOutages()


@pytest.fixture(params=["away", "full"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def watch(store: StoreWithOutages, clock: ManualClock) -> WorkerWatch:
    return WorkerWatch(store=store, clock=clock, config=CONFIG, coordinator_id="c")


async def renewed(store: StoreWithOutages, beat: int) -> None:
    await put_session(store, WorkerSession("w", ("work",), beat, started_at=0))


async def looked_for(watch: WorkerWatch, clock: ManualClock, seconds: float) -> list[str]:
    """Watch for this number of seconds, and return the workers that were lost in the end."""
    lost: list[str] = []
    for _ in range(round(seconds / LOOK_SEC)):
        await clock.advance(LOOK_SEC)
        lost = await watch.lost_workers()
    return lost


async def outage(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock, kind: str, seconds: float
) -> None:
    setattr(store, kind, True)
    for _ in range(round(seconds / LOOK_SEC)):
        await clock.advance(LOOK_SEC)
        with pytest.raises(StoreUnavailable):
            await watch.lost_workers()
    setattr(store, kind, False)


async def test_a_worker_is_not_lost_by_an_outage_of_the_store(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock, kind: str
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    await outage(watch, store, clock, kind, 60)
    assert await looked_for(watch, clock, LOOK_SEC) == []
    await renewed(store, 2)
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == []


async def test_the_silence_before_an_outage_and_after_it_counts(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock, kind: str
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == []
    await outage(watch, store, clock, kind, 60)
    assert await looked_for(watch, clock, 3 * LOOK_SEC) == []
    assert await looked_for(watch, clock, 2 * LOOK_SEC) == ["w"]


async def test_many_short_outages_do_not_make_a_live_worker_look_lost(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock, kind: str
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    for _ in range(10):
        await outage(watch, store, clock, kind, 2 * LOOK_SEC)
        assert await watch.lost_workers() == []


async def test_without_an_outage_a_silent_worker_is_lost_in_time(
    watch: WorkerWatch, store: StoreWithOutages, clock: ManualClock
) -> None:
    await renewed(store, 1)
    assert await watch.lost_workers() == []
    assert await looked_for(watch, clock, 5 * LOOK_SEC) == []
    assert await looked_for(watch, clock, LOOK_SEC) == ["w"]


async def test_a_node_goes_on_while_the_store_accepts_no_changes_and_is_not_run_again(
    store: StoreWithOutages,
) -> None:
    attempts: list[int] = []

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        attempts.append(ctx.attempt)
        await ctx.clock.sleep(200)

    async with Cluster(
        store=store, handlers=[work], coordinator_config=CONFIG, worker_config=WorkerConfig()
    ) as cluster:
        task_id = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "n", "type": "work"}]}
        )
        await cluster.clock.sleep(5)
        store.full = True
        await cluster.clock.sleep(100)
        store.full = False
        view = await cluster.client.wait(task_id, 200)
    assert (view.status, attempts) == ("finished", [1])


# ---------------------------------------------------------------- sessions of coordinators


async def coordinators_in(store: InMemoryStore) -> list[str]:
    return [one.worker_id for one in await sessions_of(store) if one.is_coordinator]


async def test_a_coordinator_has_a_session_while_it_runs() -> None:
    async with Cluster(coordinators=2) as cluster:
        await cluster.clock.sleep(1)
        running = [one.coordinator_id for one in cluster.coordinators]
        assert sorted(await coordinators_in(cluster.store)) == sorted(running)
        await cluster.coordinators.pop().stop()
        assert await coordinators_in(cluster.store) == running[:1]


async def test_the_session_of_a_coordinator_that_was_killed_is_deleted_by_another_one() -> None:
    async with Cluster(coordinator_config=CONFIG) as cluster:
        await cluster.clock.sleep(1)
        (alive,) = await sessions_of(cluster.store)
        await put_session(cluster.store, replace(alive, worker_id="killed"))
        await cluster.clock.sleep(15)
        assert len(await coordinators_in(cluster.store)) == 2
        await cluster.clock.sleep(15)
        assert await coordinators_in(cluster.store) == [alive.worker_id]
