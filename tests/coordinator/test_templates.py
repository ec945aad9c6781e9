"""Expressions in inputs are evaluated for each attempt: in the worker, or in the coordinator."""

import asyncio
from typing import Any

import pytest

from flowkit import TaskView
from flowkit._tasks.evaluation import MOST_THREADS, Evaluations
from flowkit._tasks.run_inputs import evaluated_io
from flowkit.errors import NodeFailure
from flowkit.worker import BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.builders import graph, node, turns_during

BOMB = "${params.rows.all(a, params.rows.all(b, params.rows.all(c, a + b + c >= 0)))}"
LONG = "${params.rows.map(a, params.rows.filter(b, a == b)[0])}"
"""An expression of about 100,000 steps."""
ROWS = {"rows": list(range(200))}


@handler("echo")
async def echo(item: Any) -> Any:
    return item


@handler("seen")
async def seen(item: Any, ctx: RunContext) -> Any:
    return {"item": item, "results": ctx.results, "errors": ctx.errors}


@handler("fail")
async def fail() -> None:
    raise NodeFailure("no file", reason_code="missing", permanent=True)


def inline(node_id: str, value: Any, *after: str, role: str = "echo", **fields: Any) -> Any:
    return node(node_id, role, *after, io={"input_inline": value}, **fields)


async def run(*nodes: Any, **options: Any) -> TaskView:
    async with Cluster(handlers=[echo, seen, fail]) as cluster:
        task_id = await cluster.client.create_task(graph=graph(*nodes), **options)
        return await cluster.client.wait(task_id)


async def test_a_handler_gets_the_values_of_the_expressions_in_its_input() -> None:
    view = await run(
        inline("a", {"n": "${params.n}", "twice": "${params.n * 2.0}", "text": "n=${params.n}"}),
        node("b", "echo", "a"),
        inline("c", {"a": "${results.a}", "b": "${results.b}"}, "b"),
        inline("d", "${results.a.n + results.c.a.n}", "c"),
        inline("e", "${task.pipeline}/${task.labels.team}/${task.id}", "d"),
        params={"n": 3},
        pipeline="p",
        labels={"team": "x"},
        task_id="t1",
    )
    a = {"n": 3, "twice": 6.0, "text": "n=3"}
    assert {name: one.result for name, one in view.nodes.items()} == {
        "a": a,
        "b": None,
        "c": {"a": a, "b": None},
        "d": 6,
        "e": "p/x/t1",
    }


async def test_what_an_expression_gives_is_not_evaluated_again() -> None:
    code = "${1 / 0} $${x}"
    view = await run(
        inline("a", "${params.code}"),
        inline("b", {"whole": "${results.a}", "part": "<${results.a}>", "text": "$${x}"}, "a"),
        params={"code": code},
    )
    assert view.nodes["b"].result == {"whole": code, "part": f"<{code}>", "text": "${x}"}


async def test_a_handler_sees_the_results_and_errors_that_its_expressions_name() -> None:
    view = await run(
        inline("a", 1),
        node("broken", "fail", "a", routing={"on_failure": ["b"]}),
        inline("b", 2),
        inline("skipped", 3, "b", when="false"),
        inline(
            "c",
            "${results.a} ${errors.broken.reason_code} ${results.skipped} ${results.broken}",
            "b",
            "skipped",
            role="seen",
        ),
    )
    found = view.nodes["c"].result
    assert isinstance(found, dict)
    assert found["item"] == "1 missing null null"
    assert found["results"] == {"a": 1, "b": 2}
    assert found["errors"] == {
        "broken": {"reason_code": "missing", "error": "no file", "attempt": 1}
    }


async def test_an_expression_may_read_any_node_above() -> None:
    view = await run(
        *(inline(f"n{number}", number) for number in range(3)),
        inline("join", None, "n0", "n1", "n2"),
        inline("last", "${results.map(name, results[name]).filter(r, r != null)}", "join"),
        inline("which", "${results[params.which]}", "join"),
        params={"which": "n2"},
    )
    assert sorted(view.nodes["last"].result) == [0, 1, 2]  # type: ignore[arg-type]
    assert view.nodes["which"].result == 2


async def test_below_many_nodes_the_worker_reads_from_the_store_what_expressions_need() -> None:
    names = [f"n{number}" for number in range(230)]
    view = await run(
        *(inline(name, 1) for name in names),
        inline("join", None, *names),
        inline("sum", "${results.filter(name, results[name] == 1).size()}", "join"),
    )
    assert view.nodes["sum"].result == 230


async def test_a_command_above_the_limit_is_evaluated_from_the_store() -> None:
    config = UNHURRIED_COORDINATOR.model_copy(update={"inline_limit_bytes": 2_000})
    async with Cluster(handlers=[echo], coordinator_config=config) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(
                inline("a", "x" * 1_500),
                inline("b", None, "a"),
                inline("c", "${results.a.size() + results.a.size()} ${results.b}", "b"),
            )
        )
        view = await cluster.client.wait(task_id)
    assert view.nodes["c"].result == "3000 null"


async def test_expressions_are_evaluated_for_each_attempt() -> None:
    inputs: list[Any] = []

    class Picky(Handler):
        async def process_batch(self, batch: Any, ctx: Any) -> Any:
            inputs.append(batch.payload["input_inline"])
            if len(inputs) == 1:
                raise RuntimeError("again")
            return BatchResult(success=True)

    slow = node("slow", "slow")

    @handler("slow")
    async def wait(ctx: RunContext) -> None:
        await ctx.clock.sleep(5)

    counted = node(
        "count", "coordinator_fn", "slow", io={"fn": "vars.incr", "fn_args": {"key": "n"}}
    )
    picky = inline("picky", "${has(vars.n) ? vars.n : 0}", role="picky")
    picky["retry_policy"] = {"max": 2, "backoff_sec": 10, "jitter": 0}
    async with Cluster(handlers={"picky": Picky, "slow": wait}) as cluster:
        task_id = await cluster.client.create_task(graph=graph(slow, counted, picky))
        await cluster.client.wait(task_id)
    assert inputs == [0, 1]


async def test_a_function_gets_the_values_of_its_arguments() -> None:
    def call(fn: str, *after: str, **args: Any) -> Any:
        return node(fn + "!", "coordinator_fn", *after, io={"fn": fn, "fn_args": args})

    view = await run(
        inline("a", {"n": 4}),
        inline("b", None, "a"),
        call("vars.set", "b", kv={"n": "${results.a.n + params.n}", "at": "${task.id}!"}),
        call("vars.incr", "vars.set!", key="n", by="${vars.n}"),
        params={"n": 1},
        task_id="t",
    )
    assert view.vars == {"n": 10, "at": "t!"}


@pytest.mark.parametrize("kind", ["echo", "coordinator_fn"])
@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("${results.a.missing}", "no such key 'missing' (at character 12)"),
        ("x ${results.a.n / 0}", "division by zero (at character 17)"),
    ],
)
async def test_an_expression_without_a_value_fails_its_node_without_a_retry(
    kind: str, expression: str, why: str
) -> None:
    last = (
        inline("b", expression, "a")
        if kind == "echo"
        else node("b", kind, "a", io={"fn": "vars.set", "fn_args": {"kv": {"n": expression}}})
    )
    view = await run(inline("a", {"n": 1}), last, params=ROWS)
    failed = view.nodes["b"]
    assert (view.status, failed.reason_code, failed.attempt) == ("failed", "bad_expression", 1)
    assert failed.error is not None
    assert why in failed.error
    assert ("/io/input_inline: " if kind == "echo" else "/io/fn_args/kv/n: ") in failed.error


async def test_values_cannot_choose_an_input_adapter() -> None:
    view = await run(
        inline("a", {"input_adapter": "x"}, role="seen"),
        inline("b", "${results.a}", "a"),
        params={},
    )
    assert view.nodes["a"].reason_code == "bad_input_adapter"
    view = await run(
        inline("b", "${params.input}"),
        params={"input": {"input_adapter": "pull.from_artifacts", "input_args": {}}},
    )
    assert view.nodes["b"].reason_code == "bad_expression"


async def test_arguments_of_an_input_adapter_are_evaluated() -> None:
    @handler("make")
    async def make() -> Any:
        yield {"items": list(range(5))}

    sizes: list[int] = []

    @handler("read")
    async def read(items: Any) -> None:
        sizes.append(len(items))

    source = {
        "input_adapter": "pull.from_artifacts.rechunk:size",
        "input_args": {"size": "${params.size}", "meta_list_key": "items"},
    }
    async with Cluster(handlers=[make, read]) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(node("make", "make"), inline("read", source, "make", role="read")),
            params={"size": 2},
        )
        view = await cluster.client.wait(task_id)
    assert (view.status, sizes) == ("finished", [2, 2, 1])


# ---------------------------------------------------------------- bounds


async def test_the_event_loop_turns_while_a_large_input_is_evaluated() -> None:
    evaluations = Evaluations()
    scope = {"params": ROWS, "vars": {}, "results": {}, "errors": {}, "task": {}}
    done, turns = await turns_during(evaluated_io({"input_inline": LONG}, scope, evaluations))
    assert done.result() == {"input_inline": ROWS["rows"]}
    assert turns > 5
    bombs = [evaluated_io({"input_inline": BOMB}, scope, evaluations) for _ in range(MOST_THREADS)]
    done, turns = await turns_during(asyncio.gather(*bombs, return_exceptions=True))
    assert [type(one) for one in done.result()] == [NodeFailure] * len(bombs)
    assert turns > 50


async def test_evaluations_that_are_ready_together_share_out_the_turns_of_the_event_loop() -> None:
    evaluations = Evaluations()
    began: list[int] = []
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while len(began) < 20:
            turn += 1
            await asyncio.sleep(0)

    async def one() -> None:
        def evaluate(budget: Any, _: bool) -> None:
            began.append(turn)
            budget.spend(1_500)

        await evaluations.bounded(evaluate)

    await asyncio.gather(count_turns(), *(one() for _ in range(20)))
    assert max(began.count(turn) for turn in set(began)) == 2


async def test_a_bomb_delays_no_other_task() -> None:
    async with Cluster(handlers=[echo]) as cluster:
        bomb = await cluster.client.create_task(graph=graph(inline("n0", BOMB)), params=ROWS)
        others = [
            await cluster.client.create_task(graph=graph(inline("x", "${1 + 1}")))
            for _ in range(10)
        ]
        for task_id in others:
            assert (await cluster.client.wait(task_id)).nodes["x"].result == 2
        view = await cluster.client.wait(bomb)
    failed = view.nodes["n0"]
    assert (failed.status, failed.reason_code, failed.attempt) == ("failed", "bad_expression", 1)
    assert failed.error is not None
    assert failed.error.endswith(
        "cannot be evaluated: the evaluation exceeds its limit of 2,000,000 steps"
    )
