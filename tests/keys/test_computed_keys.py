"""Concurrency keys with expressions."""

from typing import Any

import pytest

from flowkit._engine import KeyGranted, KeyNamed
from flowkit._expressions import Budget
from flowkit._tasks.evaluation import MEMORY_AT_ONCE, STEPS_AT_ONCE
from flowkit.graph import Concurrency
from flowkit.graph._templates import evaluate_key
from flowkit.task import WHOLE_TASK, TaskStatus
from flowkit_testing import Cluster
from tests.builders import graph as written
from tests.builders import node
from tests.engine.drive import STEADY, Play, effects, graph
from tests.keys.test_nodes_with_keys import Ledger, finish

KEY = "tenant-${params.tenant}"


def test_the_key_of_a_node_is_evaluated_before_it_asks_and_once_in_a_run() -> None:
    play = Play(graph("a", a={"concurrency_key": KEY, "retry_policy": STEADY}), keys=False)
    assert play.pending == ["name the key of a"]
    assert "name the key of a" in effects(play.later(10))
    assert play.do(KeyGranted(0, 1)).ignored
    assert effects(play.do(KeyNamed(0, 1, "tenant-x"))) == ["ask for the key of a"]
    assert play.do(KeyNamed(0, 1, "tenant-y")).ignored
    play.do(KeyGranted(0, 1))
    play.fails("a")
    assert effects(play.later(10)) == ["ask for the key of a"]
    assert (play.record("a").key.key, play.record("a").key.number) == ("tenant-x", 2)


def test_a_retry_of_the_task_evaluates_the_key_again() -> None:
    play = Play(graph("a", a={"concurrency_key": KEY}), keys=False)
    play.do(KeyNamed(0, 1, "tenant-x"))
    play.do(KeyGranted(0, 1))
    play.breaks("a")
    assert effects(play.retry()) == ["name the key of a"]
    assert play.do(KeyNamed(0, 1, "tenant-y")).ignored
    assert effects(play.do(KeyNamed(0, 2, "tenant-y"))) == ["ask for the key of a"]


def test_a_claim_whose_key_is_not_evaluated_yet_has_no_place_to_give_back() -> None:
    play = Play(graph("a", a={"concurrency_key": KEY}), keys=False)
    assert effects(play.cancel()) == []
    assert play.do(KeyNamed(0, 1, "tenant-x")).ignored
    whole = Play(graph("a", concurrency={"key": KEY}), keys=False)
    assert whole.pending == ["name the key of the task"]
    assert effects(whole.cancel()) == []


def test_a_key_without_a_value_fails_the_node_or_the_task() -> None:
    play = Play(graph("a", a={"concurrency_key": KEY, "retry_policy": STEADY}), keys=False)
    play.do(KeyNamed(0, 1, error="it is null"))
    assert (play.status("a"), play.record("a").reason_code) == ("failed", "bad_expression")
    whole = Play(graph("a", concurrency={"key": KEY}, final=(node("last"),)), keys=False)
    whole.do(KeyNamed(WHOLE_TASK, 1, error="it is null"))
    assert (whole.task.status, whole.task.error) == ("failed", "bad_expression: it is null")
    assert whole.marks == "CC"


@pytest.mark.parametrize("of_graph", [True, False])
async def test_tasks_wait_for_those_of_the_same_tenant_alone(of_graph: bool) -> None:
    ledger = Ledger()
    key = {"concurrency": {"key": KEY}}
    flow = written(node("a"), **key) if of_graph else written(node("a", **key))
    async with Cluster(coordinators=2, workers=2, handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for tenant in ("x", "y", "x", 7, None, [1]):
            params = {"tenant": tenant}
            ids.append(await cluster.client.create_task(graph=flow, params=params))
            await cluster.clock.sleep(0.1)
        await cluster.clock.sleep(1)
        waiting = await cluster.client.list_tasks(waiting="key")
        views = await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
    assert [one.id for one in waiting.items] == [ids[2]]
    assert (ledger.most, len(ledger.order)) == (5, 6)
    assert {view.status for view in views} == {TaskStatus.FINISHED}


@pytest.mark.parametrize(
    ("value", "error"), [(None, "is null;"), ("", "is '';"), ([1], "is a list;"), ("a\nb", "is 'a")]
)
async def test_a_value_that_is_no_name_fails_for_good(value: Any, error: str) -> None:
    flow = written(node("a", concurrency_key="${params.tenant}"))
    async with Cluster(handlers=[Ledger().handlers["work"]]) as cluster:
        view = await cluster.run(flow, params={"tenant": value})
    assert (view.nodes["a"].status, view.nodes["a"].reason_code) == ("failed", "bad_expression")
    assert error in str(view.nodes["a"].error)
    assert "the name of a key is a text of 1 to" in str(view.nodes["a"].error)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("${params.tenant}", 7, "7"),
        ("${params.tenant}", True, "true"),
        (KEY, None, "tenant-null"),
        (KEY, [1], "tenant-[1]"),
    ],
)
def test_a_number_or_a_truth_value_is_a_name_and_a_longer_one_contains_any_value(
    key: str, value: Any, name: str
) -> None:
    budget = Budget(STEPS_AT_ONCE, MEMORY_AT_ONCE)
    assert evaluate_key(Concurrency(key=key), {"params": {"tenant": value}}, budget) == name


async def test_each_child_of_a_map_and_each_node_below_others_has_its_own_key() -> None:
    ledger = Ledger()
    mapped = node("m", map={"over": ["x", "y", "x"], "as": "who"}, concurrency_key="${who}")
    below = node("b", "work", "m", concurrency_key="${results.m[0] == null}-${task.id}")
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        view = await cluster.run(written(mapped, below))
    assert (view.status, ledger.most, len(ledger.order)) == (TaskStatus.FINISHED, 2, 4)
