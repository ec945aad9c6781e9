"""Answers with a cached result: claims stay in the queue until their nodes know it."""

from collections.abc import Mapping, Sequence

import anyio
from anyio import wait_all_tasks_blocked

from flowkit._engine import Event, KeyGranted, KeyNamed, KeyQueued, KeysAnswered, ReturnKey
from flowkit._records.key_queues import read_queue
from flowkit._records.key_records import key_state
from flowkit.protocols import Store
from flowkit_testing import Cluster
from tests.engine.drive import Play, graph
from tests.keys.services import keys_of
from tests.keys.test_answers import Reads
from tests.keys.test_nodes_with_keys import Ledger

CACHED = {"cache": {"key": "x", "ttl_sec": 60}}
KEY = "role:work"


async def test_a_result_that_is_taken_at_once_costs_no_read_of_a_queue() -> None:
    store = Reads()
    async with Cluster(store=store, handlers=[Ledger(0).handlers["work"]]) as cluster:
        for name in ("a", "b"):
            store.kinds.clear()
            await cluster.run({"nodes": [{"node_id": name, "type": "work", **CACHED}]})
            await cluster.clock.sleep(1)
            assert "cache_queue" not in store.kinds
        (record,) = await store.records.scan("cache")
        assert not key_state(record).holders


def named(*names: str) -> Play:
    """Return a task with nodes that ask for the same cached result."""
    play = Play(graph(*names, **dict.fromkeys(names, CACHED)), keys=False)
    for index in range(len(names)):
        play.do(KeyNamed(index, 1, KEY, kind="cache"))
    return play


async def waiting(store: Store) -> tuple[bool, list[int]]:
    """Return whether the key is marked as contended, and the nodes in its queue."""
    state = key_state((await store.records.get("cache", [KEY])).get(KEY))
    queue = await read_queue(store.records, "cache", KEY, state.left, most=10)
    return state.contended, [one.claimant.node for one in queue.front(10)]


async def lose(events: Mapping[str, Sequence[Event]]) -> None:
    """Report no events."""


async def test_a_node_that_ends_before_it_knows_that_it_waits_leaves_the_queue() -> None:
    play = named("a", "b")
    async with Cluster(coordinators=0) as cluster, anyio.create_task_group() as group:
        keys = keys_of("cache", cluster, group, lose)
        for index in range(2):
            keys.ask(play.task, index, 1)
            await wait_all_tasks_blocked()
        assert await waiting(cluster.store) == (True, [1])
        for effect in play.resolve("b", "skipped").effects:
            if isinstance(effect, ReturnKey):
                keys.give_back(play.task, effect)
        await wait_all_tasks_blocked()
        assert await waiting(cluster.store) == (True, [])


async def test_nodes_stay_in_the_queue_until_they_know_the_result() -> None:
    """The second one asks twice: the answer that it waits was not stored before the second time."""
    play, reports = named("a", "b", "c"), []

    async def report(events: Mapping[str, Sequence[Event]]) -> None:
        reports.append([each for some in events.values() for each in some])

    async with Cluster(coordinators=0) as cluster, anyio.create_task_group() as group:
        store = cluster.store
        keys = keys_of("cache", cluster, group, report)
        for index in range(3):
            keys.ask(play.task, index, 1)
            await wait_all_tasks_blocked()
        assert await waiting(store) == (True, [1, 2])
        play.do(KeyGranted(0, 1, kind="cache"))
        [returned] = [one for one in play.succeeds("a").effects if isinstance(one, ReturnKey)]
        keys.ask(play.task, 1, 1)
        keys.give_back(play.task, returned)
        await wait_all_tasks_blocked()
        lost = {event.index for event in reports[-1]}
        assert (lost, await waiting(store)) == ({1, 2}, (True, [1, 2]))

        play.do(KeysAnswered([KeyQueued(index, 1, "cache") for index in lost]))
        keys.check(KEY, (), cluster.clock.now())
        await wait_all_tasks_blocked()
        for event in reports[-1]:
            for effect in play.do(event).effects:
                assert isinstance(effect, ReturnKey)
                keys.give_back(play.task, effect)
        await wait_all_tasks_blocked()
        assert await waiting(store) == (False, [])
    assert [play.status(name) for name in "abc"] == ["finished"] * 3
