"""Concurrency keys of nodes that operators settle, and places that child tasks share."""

from typing import Any

import pytest

from flowkit._engine import MOST_WAITING_FOR_KEYS, KeyGranted, KeyQueued, pending_effects
from flowkit._tasks.explanations import explain_node
from flowkit.errors import TaskRefused
from flowkit.task import NodeStatus, TaskStatus
from flowkit_testing import Cluster
from tests.builders import graph as tasks_graph
from tests.builders import node
from tests.engine.drive import STEADY, Play, graph, told
from tests.keys.test_nodes_with_keys import Ledger, finish, keyed

KEYED = {"concurrency_key": "k", "retry_policy": STEADY}
OUTCOMES = ("finished", "failed", "skipped")


def queued(name: str = "b") -> Play:
    """Return a task of which one node holds a key and another one waits for it."""
    play = Play(graph("a", "b", a=KEYED, b=KEYED))
    play.starts("a")
    assert play.record(name).queued_for == "key"
    return play


def returned(play: Play, effects: Any) -> list[str]:
    return [line for line in told(play.task, effects) if line.startswith("return")]


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("asks", [True, False])
def test_a_node_that_is_resolved_before_its_place_came_leaves_the_queue(
    outcome: str, asks: bool
) -> None:
    play = Play(graph("b", b=KEYED), keys=False) if asks else queued()
    step = play.resolve("b", outcome)
    assert (play.status("b"), play.record("b").attempt) == (outcome, 0)
    assert returned(play, step.effects) == ["return the key of b"]
    late = play.do(KeyGranted(play.index("b"), 1))
    assert (late.ignored, returned(play, late.effects)) == (True, ["return the key of b"])


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("end", ["stops", "succeeds"])
def test_a_resolved_node_that_runs_holds_its_place_until_its_attempt_has_ended(
    outcome: str, end: str
) -> None:
    play = Play(graph("a", "b", a=KEYED, b=KEYED, on_node_failure="continue"))
    play.starts("a")
    assert returned(play, play.resolve("a", outcome).effects) == []
    assert (play.status("a"), play.status("b")) == ("cancelling", "deferred")
    step = getattr(play, end)("a")
    assert returned(play, step.effects) == ["return the key of a"]
    assert (play.status("a"), play.status("b")) == (outcome, "queued")


def test_the_children_of_a_resolved_map_leave_the_queue() -> None:
    play = Play(graph("m", m={**KEYED, "map": {"over": [1, 2, 3]}}))
    play.opens("m", 3)
    play.starts("m[0]")
    step = play.resolve("m", "finished")
    assert returned(play, step.effects) == ["return the key of m[1]", "return the key of m[2]"]
    assert returned(play, play.stops("m[0]").effects) == ["return the key of m[0]"]
    assert (play.status("m"), play.keys and play.keys.holders) == ("finished", {})


def test_a_coordinator_returns_the_keys_of_nodes_that_a_client_has_ended() -> None:
    play = Play(graph("a", "b", a=KEYED, b=KEYED))
    assert returned(play, pending_effects(play.task)) == []
    for name in ("a", "b"):
        play.resolve(name, "skipped" if name == "a" else "finished")
        play.is_withdrawn(name)
    assert returned(play, pending_effects(play.task)) == [
        "return the key of a",
        "return the key of b",
    ]


def test_a_node_that_does_not_ask_because_many_wait_for_keys_tells_so() -> None:
    size = MOST_WAITING_FOR_KEYS + 2
    many = {**KEYED, "map": {"over": list(range(size))}}
    flow = graph("m", "p -> z", m=many, z=KEYED)
    play = Play(flow, keys=False, check=False, max_in_flight=2)
    play.opens("m", size)
    for number in range(MOST_WAITING_FOR_KEYS):
        play.do(KeyQueued(play.index(f"m[{number}]"), 1))
    play.succeeds("p")
    for name in (f"m[{size - 1}]", "z"):
        sentence = explain_node(play.task, play.index(name), play.task.records, now=play.now)
        many = "1,000 nodes of the task wait for keys, rates or cached results already"
        assert f"waits because {many}" in sentence


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_node_that_a_client_resolves_lets_the_next_one_start(outcome: Any) -> None:
    ledger = Ledger(1_000.0)
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for name in "abc":
            ids.append(await cluster.client.create_task(graph=keyed(name)))
            await cluster.clock.sleep(1)
        await cluster.client.resolve_node(ids[1], "b", outcome, by="ann")
        await cluster.clock.sleep(1)
        assert len(await cluster.store.records.scan("key_queue")) == 1
        await cluster.client.resolve_node(ids[0], "a", outcome, by="ann")
        await cluster.clock.sleep(1)
        assert ledger.order == ["a"], "its handler has a grace to end"
        await cluster.clock.sleep(15)
        assert (ledger.order, ledger.most) == (["a", "c"], 1)
        await cluster.client.resolve_node(ids[2], "c", "finished", by="ann")
        await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
        assert not await cluster.store.records.scan("key_queue")


async def test_a_command_that_waits_for_a_worker_gives_its_key_back_when_it_is_resolved() -> None:
    async with Cluster() as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        await cluster.client.resolve_node(first, "a", "finished", by="ann")
        await cluster.clock.sleep(1)
        view = await cluster.client.get_task(second)
    assert view.nodes["b"].status is NodeStatus.QUEUED


async def test_a_node_that_waits_for_its_key_has_no_pause_to_end() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        with pytest.raises(TaskRefused, match="node 'b' .* waits for its concurrency key 'k';"):
            await cluster.client.run_now(second, "b")
        await finish(cluster, first, second)


async def test_a_child_of_a_map_tells_who_holds_its_key() -> None:
    ledger = Ledger()
    graph = keyed("m")
    graph["nodes"][0]["map"] = {"over": [1, 2, 3]}
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        task_id = await cluster.client.create_task(graph=graph)
        await cluster.clock.sleep(1)
        sentence = await cluster.client.explain(task_id, "m[2]")
        await finish(cluster, task_id)
    assert sentence == (
        f"'m[2]' waits for key 'k' (limit 1), held by node 'm[0]' of task {task_id!r} since"
        " 2026-01-01 00:00:00 UTC; 1 is ahead."
    )


async def test_the_tasks_of_registered_flows_share_the_places_of_their_ancestors() -> None:
    ledger = Ledger()
    key = {"concurrency": {"key": "k", "limit": 2}}
    mapped = node("x", concurrency=key["concurrency"], map={"over": [1, 2]})
    rounds = {"flow": "inner", "until": "iteration > 0"}
    async with Cluster(coordinators=2, handlers=[ledger.handlers["work"]]) as cluster:
        await cluster.client.put_flow("inner", tasks_graph(mapped))
        await cluster.client.put_flow("middle", tasks_graph(node("l", "loop", io=rounds)))
        outer = tasks_graph(node("s", "subflow", io={"flow": "middle"}, **key))
        ids = [await cluster.client.create_task(graph=outer)]
        await cluster.clock.sleep(1)
        ids.append(await cluster.client.create_task(graph=outer))
        await cluster.clock.sleep(1)
        assert ledger.now == 4, "both tasks hold a place, and their child tasks need none"
        views = await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        left = await cluster.store.records.scan("key")
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (len(ledger.order), left) == (8, [])
