"""Expressions of ``when``."""

from contextlib import suppress
from typing import Any

import pytest

from flowkit._expressions import Budget, BudgetExceeded, Timestamp, compilations
from flowkit.errors import GraphError, NodeFailure
from flowkit.graph import Graph, check_condition, evaluate_condition
from flowkit.graph._conditions import MAX_TOTAL_LENGTH, nodes_read
from tests.builders import node

EMPTY: dict[str, Any] = {"params": {}, "vars": {}, "results": {}, "errors": {}, "task": {}}


def holds(expression: str, **scope: Any) -> bool:
    assert check_condition(expression) is None
    return evaluate_condition(expression, {**EMPTY, **scope})


def test_a_condition_sees_params_vars_results_errors_and_the_task() -> None:
    scope: dict[str, Any] = {
        "params": {"n": 3},
        "vars": {"sla": "gold"},
        "results": {"count": {"n": 4}, "a.b": {"ok": True}, "late": None},
        "errors": {"load": {"reason_code": "bad_input", "error": "no file", "attempt": 2}},
        "task": {
            "id": "t1",
            "pipeline": "nightly",
            "labels": {"team": "x"},
            "created_at": Timestamp(0),
        },
    }
    assert holds("vars.sla == 'gold' && results.count.n > params.n", **scope)
    assert holds("results['a.b'].ok && results.late == null", **scope)
    assert not holds("results.count.n < 4", **scope)
    assert holds("has(vars.sla) && !has(vars.other)", **scope)
    assert holds(
        "errors.load.reason_code == 'bad_input' && errors.load.attempt == 2 && !has(errors.count)",
        **scope,
    )
    assert holds(
        "task.id == 't1' && task.pipeline.startsWith('night') && task.labels.team == 'x'", **scope
    )
    assert holds("task.created_at < timestamp('2026-01-01T00:00:00Z')", **scope)


def test_a_condition_may_look_through_lists() -> None:
    assert holds("params.xs.all(x, x > 0) && params.xs.exists(y, y == 2)", params={"xs": [1, 2, 3]})
    assert holds("size(params.xs.filter(x, x > 1)) == 2", params={"xs": [1, 2, 3]})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("vars.sla == 'gold'", "no such key 'sla' (at character 5)"),
        ("params", "its value must be true or false, not map"),
        ("1", "its value must be true or false, not int"),
        ("params.n > 'a'", "> is not defined for int and string (at character 10)"),
        ("missing(1) == 1", "unknown function missing() (at character 1)"),
        ("params.n / 0 == 1", "division by zero (at character 10)"),
        ("params.xs[5] == 1", "index 5 is out of range for 0 elements (at character 10)"),
        ("1 +", "expected a value, found the end (at character 4)"),
        (
            "params.rows.all(a, params.rows.all(b, params.rows.all(c, a + b + c >= 0)))",
            "the evaluation exceeds its limit of 2,000,000 steps",
        ),
    ],
)
def test_what_cannot_be_evaluated_fails_the_node_permanently(expression: str, why: str) -> None:
    with pytest.raises(NodeFailure, match="cannot be evaluated") as caught:
        evaluate_condition(
            expression, {**EMPTY, "params": {"n": 1, "xs": [], "rows": list(range(150))}}
        )
    assert (caught.value.reason_code, caught.value.permanent) == ("bad_condition", True)
    assert str(caught.value) == f"when: {expression!r} cannot be evaluated: {why}"


def test_an_evaluation_with_a_budget_says_that_it_needs_more() -> None:
    with pytest.raises(BudgetExceeded):
        evaluate_condition(
            "params.xs.all(x, x > 0)", {**EMPTY, "params": {"xs": [1] * 100}}, Budget(100, 0)
        )


def test_a_name_bound_by_one_loop_is_known_and_others_are_not() -> None:
    assert check_condition("vars.xs.exists(x, x.n == y)") == (
        "uses the unknown name 'y' (at character 26); known names: params, vars, results, errors,"
        " task"
    )
    assert check_condition("task.status == 'x'") == (
        "uses the unknown field 'task.status' (at character 1); known fields: id, pipeline,"
        " labels, created_at"
    )


def test_the_nodes_that_a_condition_reads_are_known() -> None:
    assert nodes_read("results.a.n > 1 && has(results['b-c'].n) && !has(errors.d)") == {
        "results": frozenset({"a", "b-c"}),
        "errors": frozenset({"d"}),
    }
    assert nodes_read("vars.x && results.a && results[vars.y]") == {"results": None}
    assert nodes_read("vars.x") == {}


def faults(*nodes: dict[str, Any]) -> list[str]:
    try:
        Graph.parse({"nodes": list(nodes)})
    except GraphError as error:
        return [str(fault) for fault in error.faults]
    return []


def test_a_condition_reads_every_node_above_and_no_other() -> None:
    chain = [node("a"), node("b", "work", "a"), node("c", "work", "b"), node("beside")]
    assert (
        faults(
            *chain,
            node("d", "work", "c", when="results.a == null || has(errors.b) || results['c'].n > 1"),
        )
        == []
    )
    assert faults(*chain, node("d", "work", "c", when="results.beside.n > 1")) == [
        (
            "node 'd': when: 'results.beside.n > 1' reads results of 'beside', which is not"
            " upstream of this node; add an edge or remove the name"
        )
    ]
    assert faults(*chain, node("d", "work", "c", when="errors.d.attempt > 1")) == [
        (
            "node 'd': when: 'errors.d.attempt > 1' reads errors of 'd', which is not upstream of"
            " this node; add an edge or remove the name"
        )
    ]
    assert faults(node("count"), node("d", "work", "count", when="results.cuont.n > 1")) == [
        (
            "node 'd': when: 'results.cuont.n > 1' reads results of 'cuont', which is not in the"
            " graph; did you mean 'count'?"
        )
    ]
    assert faults(node("a", when="results.size() == 0")) == []


def test_an_edge_of_any_kind_puts_a_node_above() -> None:
    routed = node("a", routing={"on_failure": ["b"], "on_success": []})
    assert (
        faults(
            routed,
            node("b", when="errors.a.attempt > 1"),
            node("c", "work", "b", when="has(errors.a)"),
        )
        == []
    )
    wide = [node(f"n{place}") for place in range(300)]
    names = [one["node_id"] for one in wide]
    deep = [
        node("join", "work", *names),
        *(node(f"d{place}", "work", "join", when=f"results.n{place}.ok") for place in range(300)),
    ]
    assert faults(*wide, *deep) == []
    assert (
        len(
            faults(
                *wide,
                *deep,
                node("last", "work", "n1", when="results.n1.ok && results.n2.ok && results.d5.ok"),
            )
        )
        == 2
    )


def test_a_graph_with_other_faults_is_not_blamed_for_the_nodes_that_its_conditions_read() -> None:
    found = faults(
        node("a", "work", "nowhere"),
        node("b", "work", "a", when="results.a.n > 1"),
        node("x", "work", "y", when="results.y.n > 1"),
        node("y", "work", "x"),
    )
    assert [fault for fault in found if "when" in fault] == []


def test_the_expressions_of_a_graph_together_are_limited_and_equal_ones_count_once() -> None:
    long = "vars.x == '" + "x" * 4000 + "'"
    count = MAX_TOTAL_LENGTH // len(long) + 1
    nodes = [{"node_id": f"n{place}", "type": "x", "when": long} for place in range(count)]
    assert Graph.parse({"nodes": nodes})
    for place, one in enumerate(nodes):
        one["when"] = f"vars.n != {place} && {long}"
    with pytest.raises(
        ValueError,
        match=f"the expressions have more than {MAX_TOTAL_LENGTH} characters in total",
    ):
        Graph.parse({"nodes": nodes})


def test_a_submission_compiles_each_expression_once_and_none_of_a_graph_above_the_limit() -> None:
    def compiled_for(count: int, text: str) -> int:
        before = compilations()
        with suppress(GraphError):
            Graph.parse(
                {
                    "nodes": [
                        node(f"n{place}", when=f"vars.n == {place} && vars.x == '{text}'")
                        for place in range(count)
                    ]
                }
            )
        return compilations() - before

    assert compiled_for(1_500, "once") == 1_500
    assert compiled_for(1_500, "x" * 400) == 0


def test_the_patterns_of_a_graph_are_bounded_together() -> None:
    def graph(pattern: str, count: int) -> dict[str, Any]:
        nodes = [
            {
                "node_id": f"n{number}",
                "type": "w",
                "when": f"params.x.matches(r'{pattern}{number}')",
            }
            for number in range(count)
        ]
        return {"nodes": nodes}

    for pattern in ("^prod-.*$", r"\w{37}"):
        assert len(Graph.parse(graph(pattern, 1_000)).plan.nodes) == 1_000
    with pytest.raises(
        GraphError,
        match=r"the patterns of matches\(\) in the expressions are too large in total",
    ):
        Graph.parse(graph(r"(?i)\pL\pL\pL\pL\pL", 1_000))
