"""Checks of the holders of a key, by their stored tasks, and damaged records of keys."""

from collections.abc import Mapping, Sequence

import anyio
from anyio import wait_all_tasks_blocked

from flowkit import CoordinatorConfig
from flowkit._engine import Event
from flowkit._engine.key_places import Claimant, Holder, KeyState
from flowkit._records.key_records import awaits_place, is_over, key_change, key_state
from flowkit.coordinator._key_store import MOST_KNOWN
from flowkit.coordinator._keys import FIRST_CHECK_SEC
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit.task import Task, TaskStatus
from flowkit_testing import Cluster
from tests.engine.drive import STEADY, Play, graph
from tests.keys.services import keys_of
from tests.keys.test_nodes_with_keys import Ledger, keyed

KEYED = {"concurrency_key": "k", "retry_policy": STEADY}


def claim(number: int = 1, index: int = 0) -> Claimant:
    return Claimant("t", index, number)


def test_a_claim_lasts_from_its_question_to_the_end_of_the_attempt() -> None:
    asking = Play(graph("a", a=KEYED), keys=False)
    assert (is_over(asking.task, claim()), awaits_place(asking.task, claim())) == (False, True)
    play = Play(graph("a", a=KEYED))
    for _ in range(2):
        assert (is_over(play.task, claim()), awaits_place(play.task, claim())) == (False, False)
        play.starts("a")
    play.fails("a")
    assert is_over(play.task, claim())
    play.later(10)
    assert (is_over(play.task, claim()), is_over(play.task, claim(2))) == (True, False)
    play.succeeds("a")
    assert is_over(play.task, claim(2))


def test_a_node_that_is_being_cancelled_holds_its_place_however_long_that_takes() -> None:
    play = Play(graph("a", a=KEYED))
    play.starts("a")
    play.cancel()
    assert not is_over(play.task, claim())
    play.later(1_000)
    assert not is_over(play.task, claim())
    play.stops("a")
    assert is_over(play.task, claim())


def test_a_deleted_task_holds_nothing_and_an_old_copy_proves_nothing() -> None:
    gone: Task | None = None
    assert is_over(gone, claim())
    old = Play(graph("a", a=KEYED), keys=False).task
    assert not is_over(old, claim(2))
    assert not is_over(old, claim(1, index=7))


async def test_a_place_that_a_dead_coordinator_has_left_is_given_back() -> None:
    ledger = Ledger()
    async with Cluster(coordinators=0, handlers=[ledger.handlers["work"]]) as cluster:
        left = KeyState((Holder(Claimant("deleted", 0, 1), cluster.clock.now()),))
        change = key_change("k", left, "", op_id="left", due_at=cluster.clock.now())
        await cluster.store.records.change([change])
        await cluster.add_coordinator()
        view = await cluster.run(keyed("a"))
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
    assert (view.status, ledger.order) == (TaskStatus.FINISHED, ["a"])


async def test_a_lost_place_of_a_key_that_is_always_in_use_is_given_back() -> None:
    ledger = Ledger(seconds=1)
    config = CoordinatorConfig(scheduler_tick_sec=5)
    async with Cluster(handlers=[ledger.handlers["work"]], coordinator_config=config) as cluster:
        await cluster.clock.sleep(1)  # the first check includes keys that are due later
        now = cluster.clock.now()
        lost = Claimant("deleted", 0, 1)
        change = key_change(
            "k", KeyState((Holder(lost, now),)), "", op_id="left", due_at=now + FIRST_CHECK_SEC
        )
        await cluster.store.records.change([change])
        names = [f"n{number}" for number in range(90)]
        task_id = await cluster.client.create_task(graph=keyed(*names, limit=2))
        await cluster.clock.sleep(FIRST_CHECK_SEC / 2)
        assert lost in await holders(cluster)
        await cluster.clock.sleep(FIRST_CHECK_SEC)
        assert lost not in await holders(cluster)
        await cluster.client.wait(task_id, 1_000)
    assert ledger.most == 2


async def holders(cluster: Cluster) -> list[Claimant]:
    (record,) = (await cluster.store.records.get("key", ["k"])).values()
    return [holder.claimant for holder in key_state(record).holders]


async def test_a_node_asks_again_when_the_damaged_record_of_its_key_is_deleted() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        damaged = RecordChange("damaged", [KeyedRecord("key", "k", b"?")])
        await cluster.store.records.change([damaged])
        task_id = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(10)
        deletion = RecordChange("deleted", delete=[RecordDeletion("key", "k")])
        await cluster.store.records.change([deletion])
        view = await cluster.client.wait(task_id, 1_000)
    assert (view.status, ledger.order) == (TaskStatus.FINISHED, ["a"])


async def test_more_keys_than_stay_in_memory_are_checked_together() -> None:
    async with Cluster(coordinators=0) as cluster, anyio.create_task_group() as group:
        now, records = cluster.clock.now(), cluster.store.records
        names = [f"k{number}" for number in range(MOST_KNOWN + 1)]
        left = KeyState((Holder(claim(), now),))
        await records.change([key_change(one, left, "", op_id=one, due_at=now) for one in names])
        keys = keys_of("key", cluster, group, _refuse)
        for name in names:
            keys.check(name, [claim()], now)
        await wait_all_tasks_blocked()
        assert not await records.scan("key")


async def _refuse(events: Mapping[str, Sequence[Event]]) -> None:
    raise AssertionError(events)
