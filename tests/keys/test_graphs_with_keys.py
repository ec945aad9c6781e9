"""Concurrency keys of graphs: a task has a place from its first node until it has ended."""

from typing import Any

import pytest

from flowkit._engine import Event, KeyBusy, KeyGranted, KeyQueued, tags_of
from flowkit._engine.key_places import Claimant
from flowkit._engine.stop_reasons import DEADLINE_PASSED
from flowkit._records.key_records import awaits_place, is_over
from flowkit._records.task_records import decode_task
from flowkit._tasks.explanations import explain_node
from flowkit._tasks.views import full_view
from flowkit.errors import GraphError
from flowkit.graph import Graph
from flowkit.task import WHOLE_TASK, NodeStatus, TaskStatus
from flowkit_testing import Cluster
from tests.builders import graph as written
from tests.builders import node
from tests.engine.drive import Play, effects, graph, record_of
from tests.keys.test_nodes_with_keys import Ledger, finish

KEY = {"key": "k"}


def play_of(*lines: str, concurrency: Any = KEY, **nodes: Any) -> Play:
    return Play(graph(*lines, concurrency=concurrency, **nodes), keys=False, resend_sec=5.0)


def one(name: str, *, final: bool = False, **concurrency: Any) -> dict[str, Any]:
    """Return a graph of one node, with a key."""
    flow = written(node(name), concurrency={"key": "k", **concurrency})
    return flow | ({"finally": [node("last")]} if final else {})


GRANTED, QUEUED = KeyGranted(WHOLE_TASK, 1), KeyQueued(WHOLE_TASK, 1)
BUSY = KeyBusy(WHOLE_TASK, 1, "others hold key 'k' (limit 1)")
UNDO = {"undo": {"type": "work"}}


def test_a_task_asks_for_its_place_before_its_first_node() -> None:
    play = play_of("a -> b", a={"when": "true"})
    assert (play.marks, play.pending) == ("..", ["ask for the key of the task"])
    assert play.task.wake_at is not None
    assert effects(play.later(5)) == ["ask for the key of the task"]
    assert effects(play.do(GRANTED)) == ["decide a"]
    assert play.do(GRANTED).ignored
    assert play.pending == ["decide a"]


def test_a_task_gives_its_place_back_when_its_last_node_has_ended() -> None:
    play = play_of("a -> b")
    play.do(GRANTED)
    assert "return the key of the task" not in effects(play.succeeds("a"))
    assert effects(play.succeeds("b")) == ["return the key of the task"]
    assert play.pending == ["return the key of the task"]
    late = play.do(GRANTED)
    assert (late.ignored, effects(late)) == (True, ["return the key of the task"])


def test_a_stopped_task_holds_its_place_until_its_attempts_are_known_to_have_ended() -> None:
    play = play_of("a")
    play.do(GRANTED)
    assert effects(play.cancel()) == ["stop a", "withdraw a"]
    play.later(1_000)
    assert play.task.status == "cancelling"
    assert effects(play.is_withdrawn("a")) == ["return the key of the task"]


def test_a_task_that_waits_for_its_key_is_deferred() -> None:
    play = play_of("a")
    play.do(QUEUED)
    assert (play.task.status, tags_of(play.task)) == ("deferred", {"root", "waiting:key"})
    view = full_view(play.task, play.task.records)
    assert (view.waiting, view.waits) == ("key", ("key 'k'",))
    assert explain_node(play.task, 0, {}, now=play.now) == "'a' waits until its task has key 'k'."
    play.do(GRANTED)
    assert (play.task.status, tags_of(play.task)) == ("queued", {"root", "waiting:worker"})


@pytest.mark.parametrize("answer", [QUEUED, None])
def test_a_task_that_is_cancelled_before_it_has_its_place_ends_without_its_later_phases(
    answer: Event | None,
) -> None:
    play = play_of("a", a=UNDO, final=(node("last"),))
    if answer is not None:
        play.do(answer)
    assert effects(play.cancel("not wanted")) == ["return the key of the task"]
    assert (play.marks, play.task.status) == ("CCC", "cancelled")


def test_the_deadline_ends_a_task_that_waits_for_its_key() -> None:
    play = Play(graph("a", concurrency=KEY, final=(node("last"),)), keys=False, deadline_sec=60)
    play.do(QUEUED)
    assert effects(play.later(60)) == ["return the key of the task"]
    assert (play.task.status, play.task.error) == ("failed", DEADLINE_PASSED)


@pytest.mark.parametrize(("on_conflict", "status"), [("skip", "cancelled"), ("fail", "failed")])
def test_a_task_that_does_not_wait_for_its_key_ends_at_once(on_conflict: str, status: str) -> None:
    play = play_of("a -> b", concurrency=KEY | {"on_conflict": on_conflict}, final=(node("last"),))
    step = play.do(BUSY)
    view = full_view(play.task, {})
    assert (effects(step), view.status, view.error) == ([], status, BUSY.error)
    assert {(one.status, one.reason_code) for one in view.nodes.values()} == {
        (NodeStatus.CANCELLED, "key_busy")
    }
    assert tags_of(play.task) == {"root", "reason:key_busy"}
    play.retry()
    assert play.pending == ["ask for the key of the task"]
    assert play.do(BUSY).ignored
    play.do(KeyGranted(WHOLE_TASK, 2))
    assert play.succeeds("a")


def test_a_task_that_is_paused_when_its_turn_comes_keeps_its_rank() -> None:
    play = play_of("a")
    play.do(QUEUED)
    play.pause()
    since = play.now
    assert effects(play.do(GRANTED)) == ["return the key of the task"]
    play.later(100)
    assert effects(play.resume()) == ["ask for the key of the task"]
    assert play.task.key is not None
    assert (play.task.key.number, play.task.key.asked_at) == (2, since)


def test_a_paused_task_holds_its_place() -> None:
    play = play_of("a -> b")
    play.do(GRANTED)
    play.pause()
    assert effects(play.succeeds("a")) == []
    assert effects(play.resume()) == ["run b"]


def test_a_retry_asks_again() -> None:
    play = play_of("a -> b")
    play.do(GRANTED)
    play.breaks("a")
    assert effects(play.retry()) == ["ask for the key of the task"]
    assert play.marks == ".."
    assert effects(play.do(KeyGranted(WHOLE_TASK, 2))) == ["run a"]


def test_the_claim_of_a_task_is_stored() -> None:
    flow = graph("a", concurrency=KEY)
    play = Play(flow, keys=False)
    play.do(QUEUED)
    found = decode_task(record_of(play.task, flow))
    assert found.key == play.task.key
    assert not is_over(found, Claimant("t", WHOLE_TASK, 1))
    assert awaits_place(found, Claimant("t", WHOLE_TASK, 1))
    play.cancel()
    assert is_over(play.task, Claimant("t", WHOLE_TASK, 1))


async def test_tasks_with_a_key_run_one_after_the_other_also_while_one_is_paused() -> None:
    ledger = Ledger()
    flow = one("a") | {"nodes": [node("a"), node("b", "work", "a")]}
    async with Cluster(coordinators=2, workers=2, handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=one("c"))
        await cluster.clock.sleep(1)
        view = await cluster.client.get_task(second)
        sentence = await cluster.client.explain(second, "c")
        listed = await cluster.client.list_tasks(waiting="key")
        await cluster.client.pause(first)
        await cluster.clock.sleep(100)
        assert ledger.order == ["a"]
        while_paused = await cluster.client.explain(second, "c")
        await cluster.client.resume(first)
        await finish(cluster, first, second)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
        assert not await cluster.store.records.scan("key_queue")
    assert (view.status, view.waiting) == (TaskStatus.DEFERRED, "key")
    assert [item.id for item in listed.items] == [second]
    assert sentence == (
        f"'c' waits until its task has key 'k' (limit 1), held by task {first!r} since 2026-01-01"
        " 00:00:00 UTC; 0 are ahead."
    )
    assert while_paused == f"{sentence} Task {first!r} is paused: run `flowkit resume {first}`."
    assert ledger.order == ["a", "b", "c"]


async def test_explain_names_the_task_whose_resume_lets_a_child_give_its_key_back() -> None:
    ledger = Ledger()
    inner = one("x") | {"nodes": [node("x"), node("y", "work", "x")]}
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(
            graph={"nodes": [node("s", "subflow", io={"graph": inner})]}
        )
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=one("c"))
        await cluster.clock.sleep(1)
        await cluster.client.pause(first)
        await cluster.clock.sleep(100)
        child = (await cluster.client.get_task(first)).nodes["s"].child_task_id
        said = await cluster.client.explain(second, "c")
        await cluster.client.resume(first)
        await finish(cluster, first, second)
    assert said.endswith(f" Task {child!r} is paused: run `flowkit resume {first}`.")


async def test_nodes_and_child_tasks_share_the_place_of_their_task() -> None:
    ledger = Ledger()
    inner = one("x", on_conflict="fail")
    flow = one("a", limit=1)
    flow["nodes"] = [
        node("a", concurrency_key="k"),
        node("s", "subflow", io={"graph": inner}),
        node("b", "work", "a", concurrency={"key": "k", "on_conflict": "fail"}),
    ]
    async with Cluster(coordinators=2, handlers=[ledger.handlers["work"]]) as cluster:
        (view,) = await finish(cluster, await cluster.client.create_task(graph=flow))
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
    assert (view.status, sorted(ledger.order)) == (TaskStatus.FINISHED, ["a", "b", "x"])


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_task_that_cancels_the_running_one_starts_when_that_has_ended(limit: int) -> None:
    ledger = Ledger(1_000.0)
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for name in "abcd":
            flow = one(name, limit=limit, on_conflict="cancel_running")
            ids.append(await cluster.client.create_task(graph=flow))
            await cluster.clock.sleep(60)
        views = [await cluster.client.get_task(task_id) for task_id in ids]
        await cluster.client.cancel(ids[-1])
    assert ledger.order == list("abcd")
    assert ledger.most == limit
    statuses = [view.status for view in views]
    assert statuses == ["cancelled"] * (4 - limit) + ["running"] * limit
    assert views[0].error == "its key 'k' is taken over"


@pytest.mark.parametrize("waiting", [1, 5])
async def test_a_task_that_cancels_a_paused_one_starts_before_those_that_wait(waiting: int) -> None:
    ledger = Ledger()
    flow = one("a") | {"nodes": [node("a"), node("b", "work", "a")]}
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        client = cluster.client
        paused = await client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        await client.pause(paused)
        others = [
            await client.create_task(graph=one(f"q{number}"), priority=9)
            for number in range(waiting)
        ]
        await cluster.clock.sleep(60)
        last = await client.create_task(graph=one("r", on_conflict="cancel_running"))
        await cluster.clock.sleep(1)
        sentence = await client.explain(others[0], "q0")
        views = await finish(cluster, paused, last, *others)
    assert [view.status for view in views] == ["cancelled", *["finished"] * (waiting + 1)]
    assert views[0].error == "its key 'k' is taken over"
    assert ledger.order[:2] == ["a", "r"]
    assert f"held by task {last!r}" in sentence


async def test_a_task_that_cancels_the_running_one_cancels_none_while_a_place_is_free() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        flows = [one(name, limit=2, on_conflict="cancel_running") for name in "ab"]
        ids = [await cluster.client.create_task(graph=flow) for flow in flows]
        views = await finish(cluster, *ids)
    assert {view.status for view in views} == {TaskStatus.FINISHED}


async def test_a_waiting_task_that_a_client_cancels_leaves_the_queue() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for name in "abc":
            ids.append(await cluster.client.create_task(graph=one(name, final=True)))
            await cluster.clock.sleep(1)
        await cluster.client.cancel(ids[1], "not wanted")
        views = await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
        assert not await cluster.store.records.scan("key_queue")
    assert views[1].nodes["last"].status is NodeStatus.CANCELLED
    assert ledger.order == ["a", "last", "c", "last"]


def test_a_graph_with_an_unknown_policy_is_refused() -> None:
    with pytest.raises(GraphError, match="concurrency"):
        Graph.parse(one("a", on_conflict="wait"))
