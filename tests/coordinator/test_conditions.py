"""Slow conditions are evaluated beside other work, and end at their limits."""

from typing import Any

import pytest

from flowkit import Graph
from flowkit._engine import (
    ConditionDelayed,
    ConditionEvaluated,
    EvaluateCondition,
    SendCommand,
    Woke,
)
from flowkit._expressions import compile_expression
from flowkit._records.queries import load_task
from flowkit._tasks.conditions import (
    Allowance,
    evaluate_at_once,
    evaluate_delayed,
)
from flowkit._tasks.evaluation import Evaluations
from flowkit.graph._nodes_read import nodes_needed
from flowkit.graph._parser import restore_document
from flowkit.graph._plan import make_plan
from flowkit.graph._templates import CHARACTERS_AT_ONCE
from flowkit.task import Mark, Task, TaskSpec
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node, turns_during
from tests.coordinator.processors import processor_of
from tests.engine.drive import new_task

ROWS = {"rows": list(range(200))}
LONG = "params.rows.all(a, params.rows.all(b, a + b >= 0))"
"""A condition of about 300,000 steps."""
WHEN = "results[vars.x]"
BOMB = "params.rows.all(a, params.rows.all(b, params.rows.all(c, a + b + c >= 0))) || true"


@handler("work")
async def work() -> str:
    return "done"


def continuing(*nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a graph that continues after a failed node."""
    return graph(*nodes, on_node_failure="continue")


def task_of(*nodes: dict[str, Any]) -> Task:
    task = new_task(Graph.parse(continuing(*nodes)))
    task.spec.params.update(ROWS)
    return task


async def test_a_long_condition_is_decided_and_a_bomb_fails_its_node_while_other_tasks_go_on() -> (
    None
):
    async with Cluster(handlers=[work], coordinators=2) as cluster:
        slow = continuing(
            node("a"),
            node("b", "work", "a", when=LONG),
            node("c", "work", "a", when=f"!({LONG})"),
            node("d", "work", "a", when=BOMB),
        )
        first = await cluster.client.create_task(graph=slow, params=ROWS)
        others = [
            await cluster.client.create_task(
                graph=continuing(node("x", when="true"), node("y", "work", "x"))
            )
            for _ in range(5)
        ]
        for task_id in others:
            assert (await cluster.client.wait(task_id)).status == "finished"
        view = await cluster.client.wait(first)
    statuses = {
        node_id: (str(found.status), found.reason_code) for node_id, found in view.nodes.items()
    }
    assert statuses == {
        "a": ("finished", None),
        "b": ("finished", None),
        "c": ("skipped", "condition_false"),
        "d": ("failed", "bad_condition"),
    }
    assert view.nodes["d"].error is not None
    assert view.nodes["d"].error.endswith(
        "cannot be evaluated: the evaluation exceeds its limit of 2,000,000 steps"
    )


async def test_a_commit_waits_for_no_condition_that_takes_long() -> None:
    store = InMemoryStore()
    processor = processor_of(store, sends=False)
    for task_id, when in (("slow", BOMB), ("quick", "params.rows.size() == 200")):
        document = Graph.parse(continuing(node("a", when=when)))
        spec = TaskSpec(task_id, document.plan, created_at=1.0, secret=b"key", params=ROWS)
        await processor.create([processor.submit(spec, document.source, certainly_new=False)])
    applied = await processor.refresh(["slow", "quick"])
    assert {todo.task.task_id: todo.effects for todo in applied.effects} == {
        "slow": [EvaluateCondition(0)],
        "quick": [SendCommand(0, 1, 0)],
    }
    stored = await load_task(store, "slow")
    assert (stored.marks[0], stored.wake_at is not None) == (Mark.CHECKING, True)
    # A delayed condition is not tried again before the next commit, and stays pending.
    woke = await processor.apply({"slow": [Woke()]})
    assert [todo.effects for todo in woke.effects] == [[EvaluateCondition(0)]]


async def test_the_event_loop_turns_while_a_condition_is_evaluated_in_a_thread() -> None:
    task = task_of(node("a", when=BOMB))
    evaluation = evaluate_delayed(InMemoryStore(), task, 0, 1.0, Evaluations())
    done, turns = await turns_during(evaluation)
    outcome = await done
    assert (outcome.index, outcome.value, outcome.since) == (0, False, 1.0)
    assert "2,000,000 steps" in (outcome.error or "")
    assert turns > 20


async def test_a_condition_is_delayed_where_it_needs_more_than_a_commit_allows() -> None:
    store = InMemoryStore()

    async def outcome(when: str, steps: int = 200_000) -> Any:
        allowance = Allowance(steps)
        found = await evaluate_at_once(store, task_of(node("a", when=when)), 0, allowance)
        assert allowance.steps <= steps
        return found

    assert await outcome("params.rows.all(a, a >= 0)") == ConditionEvaluated(0, True)
    assert await outcome(LONG) == ConditionDelayed(0)
    assert await outcome("params.rows.all(a, a >= 0)", steps=100) == ConditionDelayed(0)
    assert await outcome("true", steps=0) == ConditionDelayed(0)
    assert "must be true or false, not int" in (await outcome("1")).error


async def test_one_that_may_read_any_result_is_delayed_below_many_nodes() -> None:
    names = [f"n{place}" for place in range(40)]
    layers = (
        [node(name) for name in names],
        [node(f"m{name}", "work", *names) for name in names],
        [node("a", "work", "mn1", "mn2", when=WHEN)],
    )
    plan = Graph.parse(continuing(*(one for layer in layers for one in layer))).plan
    index = plan.index["a"]
    assert nodes_needed(plan, index, [WHEN], most_edges=50) is None
    needed = nodes_needed(plan, index, [WHEN], most_edges=100)
    assert needed is not None
    assert [plan.ids[place] for place in needed["results"]] == [*names, "mn1", "mn2"]


@pytest.mark.parametrize("results", [{"size": 42}, None])
async def test_a_condition_reads_results_of_all_nodes_above_and_the_errors_of_failed_ones(
    results: Any,
) -> None:
    @handler("start")
    async def start() -> Any:
        return results

    @handler("fail")
    async def fail() -> None:
        raise ValueError("no file")

    flow = continuing(
        node("a") | {"type": "start"},
        node("b", "work", "a"),
        node("skipped", "work", "b", when="false"),
        node(
            "broken",
            "work",
            "b",
            routing={"on_failure": ["after"]},
            retry_policy={"max": 1, "backoff_sec": 0},
        )
        | {"type": "fail"},
        node(
            "after",
            when=(
                "errors.broken.reason_code == 'bad_input' && !has(errors.b) && results.broken =="
                " null"
            ),
        ),
        node("c", "work", "b", when="results.a == null || results.a.size == 42"),
        node("d", "work", "c", "skipped", when="results.skipped == null && results['b'] == 'done'"),
        node(
            "e",
            "work",
            "d",
            when=(
                "results.size() == 5 && results.map(r, r).all(r, r in ['a', 'b', 'c', 'd',"
                " 'skipped'])"
            ),
        ),
        node(
            "f",
            "work",
            "e",
            when=(
                "task.id != '' && task.pipeline == 'p' && task.labels.x == 'y' && task.created_at >"
                " timestamp(0)"
            ),
        ),
    )
    async with Cluster(handlers=[work, start, fail]) as cluster:
        task_id = await cluster.client.create_task(graph=flow, pipeline="p", labels={"x": "y"})
        view = await cluster.client.wait(task_id)
    found = {node_id: str(one.status) for node_id, one in view.nodes.items()}
    assert found == {
        **dict.fromkeys(["a", "b", "after", "c", "d", "e", "f"], "finished"),
        "skipped": "skipped",
        "broken": "failed",
    }, {name: one.error for name, one in view.nodes.items() if one.error}


async def test_an_expression_that_is_wrong_since_an_update_fails_its_node() -> None:
    document = restore_document(
        b'{"nodes": [{"node_id": "a", "type": "work", "when": "missing(1)"}]}'
    )
    spec = TaskSpec("t", make_plan(document), created_at=1.0, secret=b"key")
    task = Task(spec, marks=bytearray(b"?"))
    error = "when: 'missing(1)' cannot be evaluated: unknown function missing() (at character 1)"
    assert await evaluate_at_once(InMemoryStore(), task, 0, Allowance()) == ConditionEvaluated(
        0, error=error
    )
    assert await evaluate_delayed(
        InMemoryStore(), task, 0, 1.0, Evaluations()
    ) == ConditionEvaluated(0, error=error, since=1.0)


async def test_expressions_that_are_not_kept_compiled_use_up_the_steps_of_a_commit() -> None:
    terms = " && ".join(["params.rows.size() > 1"] * 30)
    assert len(terms) < CHARACTERS_AT_ONCE
    expressions = [f"{terms} && {number} != -1" for number in range(40)]
    task = task_of(*(node(f"n{number}", when=one) for number, one in enumerate(expressions)))
    for number in range(150):
        compile_expression(f"{number} == {number} // {terms}")  # evicts those of the graph
    allowance = Allowance()
    cold = [
        await evaluate_at_once(InMemoryStore(), task, number, allowance)
        for number in range(len(expressions))
    ]
    assert 5 < sum(isinstance(one, ConditionEvaluated) for one in cold) < 30
    warm = Allowance()
    for number, one in enumerate(cold):
        if isinstance(one, ConditionEvaluated):
            assert await evaluate_at_once(InMemoryStore(), task, number, warm) == one
    assert warm.steps > Allowance().steps * 0.9


async def test_a_long_expression_is_compiled_beside_other_work() -> None:
    task = task_of(node("a", when=" && ".join(["params.rows.size() > 1"] * 50)))
    assert await evaluate_at_once(InMemoryStore(), task, 0, Allowance()) == ConditionDelayed(0)
    assert (await evaluate_delayed(InMemoryStore(), task, 0, 1.0, Evaluations())).value is True
