"""The output of a graph becomes the result of its task."""

import asyncio
from typing import Any

import pytest

from flowkit import TaskView
from flowkit._tasks.conditions import Allowance
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.outputs import output_at_once, output_delayed
from flowkit.config import CoordinatorConfig
from flowkit.errors import NodeFailure
from flowkit.graph import Graph
from flowkit.graph._models import GraphDocument
from flowkit.graph._parser import restore_document
from flowkit.graph._plan import make_plan
from flowkit.task import Mark, Task, TaskSpec
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.builders import graph, node

LONG = "${params.rows.map(a, params.rows.filter(b, a == b)[0]).size()}"
"""An expression of about 100,000 steps."""
BOMB = "${params.rows.all(a, params.rows.all(b, params.rows.all(c, a + b + c >= 0)))}"
ROWS = {"rows": list(range(200))}
MOST = 1_000


@handler("echo")
async def echo(item: Any) -> Any:
    return item


@handler("fail")
async def fail() -> None:
    raise NodeFailure("no file", reason_code="missing", permanent=True)


def inline(node_id: str, value: Any, *after: str, **fields: Any) -> Any:
    return node(node_id, "echo", *after, io={"input_inline": value}, **fields)


async def run(*nodes: Any, output: Any, params: Any = None, **fields: Any) -> TaskView:
    config = UNHURRIED_COORDINATOR.model_copy(update=fields)
    async with Cluster(handlers=[echo, fail], coordinator_config=config) as cluster:
        return await cluster.run(graph(*nodes, output=output), params=params)


async def test_the_output_may_read_params_vars_and_all_nodes() -> None:
    view = await run(
        inline("a", {"n": 2}),
        node("broken", "fail", "a", routing={"on_failure": ["vars"]}),
        {
            "node_id": "vars",
            "type": "coordinator_fn",
            "io": {"fn": "vars.set", "fn_args": {"kv": {"m": 5}}},
        },
        inline("skipped", 1, "vars", when="false"),
        output={
            "sum": "${results.a.n + vars.m + params.p}",
            "text": "n=${results.a.n} $${x}",
            "why": "${errors.broken.reason_code}",
            "none": ["${results.skipped}", None, 3],
            "all": "${results.map(name, name)}",
            "task": "${task.id}",
        },
        params={"p": 10},
    )
    assert (view.status, view.error) == ("finished", None)
    assert view.result == {
        "sum": 17,
        "text": "n=2 ${x}",
        "why": "missing",
        "none": [None, None, 3],
        "all": ["a", "broken", "vars", "skipped"],
        "task": view.id,
    }


@pytest.mark.parametrize(
    ("output", "result"), [("${results.a}", [1, None]), ("n: ${params.n}", "n: null"), ({}, {})]
)
async def test_the_result_has_the_type_of_the_output(output: Any, result: Any) -> None:
    view = await run(inline("a", [1, None]), output=output, params={"n": None})
    assert view.result == result


async def test_an_output_without_a_value_fails_the_task_and_a_retry_evaluates_it_again() -> None:
    async with Cluster(handlers=[echo]) as cluster:
        view = await cluster.run(
            graph(inline("a", 1), output={"x": {"y/z": "${results.a + vars.n}"}})
        )
        assert (view.status, view.result) == ("failed", None)
        assert view.error == (
            "output failed: bad_expression: /output/x/y~1z: 'results.a + vars.n' cannot be"
            " evaluated: no such key 'n' (at character 19)"
        )
        assert view.nodes["a"].status == "finished"
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
        assert (again.error, again.nodes) == (view.error, view.nodes)


async def test_an_output_that_takes_long_is_evaluated_beside_other_tasks() -> None:
    view = await run(inline("a", 1), output={"n": LONG}, params=ROWS)
    assert (view.status, view.result) == ("finished", {"n": 200})


async def test_an_output_above_the_limits_fails_the_task() -> None:
    view = await run(inline("a", 1), output=BOMB, params=ROWS)
    assert (view.status, view.result) == ("failed", None)
    assert (view.error or "").startswith("output failed: bad_expression: /output: ")


async def test_an_output_that_is_too_large_fails_the_task() -> None:
    limits = CoordinatorConfig().limits.model_copy(update={"max_result_bytes": 10})
    for output in ("${results.a}", f"${{{LONG[2:-1]} > 0 ? results.a : 0}}"):
        view = await run(inline("a", "x" * 9), output=output, params=ROWS, limits=limits)
        assert view.error == (
            "output failed: result_too_large: the output has 11 bytes as JSON, above the limit of"
            " 10 bytes (limits.max_result_bytes)"
        )


def task_of(document: GraphDocument, **params: Any) -> Task:
    spec = TaskSpec("t", make_plan(document), created_at=1.0, secret=b"key", params=params)
    return Task(spec, marks=bytearray([Mark.SKIPPED]) * len(document.nodes))


async def test_an_output_that_takes_long_is_delayed() -> None:
    async def at_once(output: Any, steps: int = 200_000) -> str:
        task = task_of(Graph.parse(graph(node("a"), output=output)).document, **ROWS)
        store, allowance = InMemoryStore(), Allowance(steps)
        event = await output_at_once(store, task, allowance, max_bytes=MOST)
        return type(event).__name__

    assert await at_once("${params.rows.size()}") == "OutputEvaluated"
    assert await at_once("${params.rows.size()}", steps=0) == "OutputDelayed"
    assert await at_once(LONG) == "OutputDelayed"
    many = {str(number): f"${{params.rows.size() + {number}}}" for number in range(50)}
    assert await at_once(many) == "OutputDelayed"


async def test_an_output_that_reads_any_of_many_nodes_is_delayed() -> None:
    nodes = [node(f"n{number}") for number in range(1_001)]
    task = task_of(Graph.parse(graph(*nodes, output="${results.size()}")).document)
    event = await output_at_once(InMemoryStore(), task, Allowance(), max_bytes=MOST)
    assert type(event).__name__ == "OutputDelayed"
    done = await output_delayed(InMemoryStore(), task, 1.0, Evaluations(), max_bytes=MOST)
    assert (done.value, done.error, done.since) == (1_001, None, 1.0)


async def test_an_output_that_is_wrong_since_an_update_fails_the_task() -> None:
    task = task_of(
        restore_document(
            b'{"nodes": [{"node_id": "a", "type": "work"}], "output": "${missing(1)}"}'
        )
    )
    event = await output_at_once(InMemoryStore(), task, Allowance(), max_bytes=MOST)
    assert type(event).__name__ == "OutputDelayed"
    done = await output_delayed(InMemoryStore(), task, 1.0, Evaluations(), max_bytes=MOST)
    assert (done.error or "").startswith("bad_expression: unknown function missing()")


async def test_a_task_may_be_cancelled_while_its_output_is_evaluated() -> None:
    async with Cluster(handlers=[echo], coordinator_config=UNHURRIED_COORDINATOR) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(inline("a", 1), output=BOMB), params=ROWS
        )
        while (await cluster.client.get_task(task_id)).nodes["a"].status != "finished":
            await asyncio.sleep(0)
        await cluster.client.cancel(task_id, "enough")
        view = await cluster.client.wait(task_id)
        assert (view.status, view.error, view.result) == ("cancelled", "enough", None)
