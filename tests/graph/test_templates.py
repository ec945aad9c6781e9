"""Expressions in the inputs of nodes: checks at submission, and values."""

import math
from typing import Any

import pytest

from flowkit._expressions import Budget, BudgetExceeded
from flowkit._expressions.templates import Placed, split_template
from flowkit.errors import GraphError, NodeFailure
from flowkit.graph import Graph
from flowkit.graph._conditions import task_values
from flowkit.graph._nodes_read import input_needed, input_needed_at_once
from flowkit.graph._templates import CHARACTERS_AT_ONCE, evaluate_input, evaluate_items
from tests.builders import graph, nested, node

SCOPE: dict[str, Any] = {
    "params": {"n": 3, "name": "x", "rows": [1, 2], "huge": 2**1000, "deep": nested(100), "z": 0.5},
    "vars": {"a": {"b": None}, "code": "${params.n}", "long": list(range(300))},
    "results": {"load": {"path": "/a"}, "a-b": 1, "none": None},
    "errors": {"bad": {"reason_code": "quota", "error": "no", "attempt": 2}},
    "task": task_values("t1", "nightly", {"team": "x"}, 1.5),
}
STEPS, MEMORY = 1_000_000, 10_000_000


def value(template: Any, *, steps: int = STEPS, memory: int = MEMORY, at_once: bool = False) -> Any:
    budget = Budget(steps, memory)
    io = {"input_inline": template}
    return evaluate_input(io, SCOPE, budget, at_once=at_once)["input_inline"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", ["plain"]),
        ("", []),
        ("${a}", [Placed("a", 2)]),
        ("x ${a} y", ["x ", Placed("a", 4), " y"]),
        ("${a}${b}", [Placed("a", 2), Placed("b", 6)]),
        ("${ {'k': 1} }", [Placed(" {'k': 1} ", 2)]),
        ("${'}'}", [Placed("'}'", 2)]),
        ("${'''}${'''}", [Placed("'''}${'''", 2)]),
        ("$${a}", ["${", "a}"]),
        ("$$${a}", ["$${", "a}"]),
        ("$${${a}", ["${", Placed("a", 5)]),
        ("$ {a} $a {b}", ["$ {a} $a {b}"]),
        ("${a // }\n}", [Placed("a // }\n", 2)]),
    ],
)
def test_a_string_is_split_into_texts_and_expressions(text: str, parts: list[Any]) -> None:
    assert list(split_template(text)) == parts


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${params.n}", 3),
        (" ${params.n}", " 3"),
        ("${params.rows}", [1, 2]),
        ("rows: ${params.rows}!", "rows: [1,2]!"),
        ("${params.name}", "x"),
        ("${params.name}-${params.n}", "x-3"),
        ("${vars.a}", {"b": None}),
        ("${vars.a.b}", None),
        ("${vars.a.b} and ${true}", "null and true"),
        ("${vars.code}", "${params.n}"),
        ("${vars.code}!", "${params.n}!"),
        ("$${params.n}", "${params.n}"),
        ("$$${params.n}", "$${params.n}"),
        ("costs 5$", "costs 5$"),
        ("${params.n + 0.5}", 3.5),
        ("${params.n * 2.0 == 6}", True),
        ("${2.0}", 2.0),
        ("${7u}", 7),
        ("${params.huge}", 2**1000),
        ("${string(params.rows)}", "[1,2]"),
        ("${string(vars.a.b)}", "null"),
        ("${results.load.path}", "/a"),
        ("${results['a-b']}", 1),
        ("${results.none}", None),
        ("${results.none == null}", True),
        ("${errors.bad.attempt}", 2),
        ("${has(errors.load)}", False),
        ("${task.id}/${task.pipeline}/${task.labels.team}", "t1/nightly/x"),
        ("${task.created_at}", "1970-01-01T00:00:01.5Z"),
        ("at ${task.created_at}", "at 1970-01-01T00:00:01.5Z"),
        ("${duration('90s')}", "90s"),
        ("${b'ab'}", "ab"),
        ("${type(1)}", "int"),
        ("${{'a': [1u, b'x'], true: 1.5}}", {"a": [1, "x"], "true": 1.5}),
        ("${params.rows.map(r, {'r': r})}", [{"r": 1}, {"r": 2}]),
        (
            {"a": ["${params.n}", {"b": "${params.name}"}], "${params.n}": 1},
            {"a": [3, {"b": "x"}], "${params.n}": 1},
        ),
        ([1, None, True, "x"], [1, None, True, "x"]),
    ],
)
def test_a_template_has_the_value_of_its_expressions(template: Any, expected: Any) -> None:
    found = value(template)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("${vars.x}", "'vars.x' cannot be evaluated: no such key 'x' (at character 7)"),
        ("ab ${vars.x}", "'vars.x' cannot be evaluated: no such key 'x' (at character 10)"),
        ("${params.n / 0}", "division by zero (at character 12)"),
        ("${params.n + params.name}", "+ is not defined for int and string (at character 12)"),
        ("${results.none.n}", "null has no fields, so it has no 'n'"),
        ("${params.huge * 2}", "the operand exceeds 64 bits (at character 15)"),
        ("${9223372036854775807 + 1}", "the result is out of range for an int"),
        ("${1.0 / 0.0}", "its value contains a number that is not finite"),
        ("${[0.0 / 0.0]}", "its value contains a number that is not finite"),
        ("x${1e308 * 10.0}", "its value contains a number that is not finite"),
        (r"${b'\xff'}", "the bytes are not valid UTF-8"),
        ("${" + "[" * 30 + "params.deep" + "]" * 30 + "}", "its value is nested too deeply"),
        ("${{1: 'a', '1': 'b'}}", "two keys of a map are '1' as JSON"),
        ("${params.rows[5]}", "index 5 is out of range for 2 elements"),
        ("${int('x')}", "the string is not an integer"),
        ("${timestamp(params.name)}", "cannot be evaluated"),
        ("${params.name ? 1 : 2}", "? needs true or false, not string"),
        ("${{'input_adapter': 'pull.from_artifacts'}}", "must not have the key 'input_adapter'"),
    ],
)
def test_an_expression_without_a_value_is_a_permanent_failure(template: str, why: str) -> None:
    with pytest.raises(NodeFailure) as caught:
        value(template)
    assert (caught.value.reason_code, caught.value.permanent) == ("bad_expression", True)
    assert str(caught.value).startswith("/io/input_inline: ")
    assert why in str(caught.value)


def test_the_error_names_the_place_of_the_expression() -> None:
    with pytest.raises(NodeFailure, match=r"^/io/input_inline/a~1b/1/c~0d: 'vars.x' cannot be"):
        value({"a/b": [1, {"c~d": "${vars.x}"}]})


def test_a_value_shares_nothing_with_the_scope_and_its_input_is_not_changed() -> None:
    template = {"rows": "${params.rows}", "all": ["${vars}"]}
    made = value(template)
    made["rows"].append(3)
    made["all"][0]["a"]["b"] = 1
    assert SCOPE["params"]["rows"] == [1, 2]
    assert SCOPE["vars"]["a"] == {"b": None}
    assert template == {"rows": "${params.rows}", "all": ["${vars}"]}


BOMBS = {
    "steps": "${vars.long.all(a, vars.long.all(b, vars.long.all(c, a + b + c >= 0)))}",
    "steps behind ||": "${vars.long.all(a, vars.long.all(b, a + b == b + a)) || true}",
    "texts that grow": "${['x']" + ".map(v, v + v + v + v + v + v + v + v)" * 9 + "}",
    "lists that grow": "${[[1]]" + ".map(v, v + v + v + v + v + v + v + v)" * 9 + "}",
    "shared lists": "${[[0]]" + ".map(v, [v, v, v, v, v, v, v, v, v, v])" * 9 + "}",
    "shared texts": "${vars.long.map(a, string(vars.long)).map(t, vars.long.map(a, t))}",
    "JSON in a text": "x ${[[0]]" + ".map(v, [v, v, v, v, v, v, v, v, v, v])" * 9 + "}",
    "patterns": r"${vars.long.all(a, string(vars.long).matches('(a|b)*c' + string(a)) || true)}",
    "durations": "${vars.long.map(a, vars.long.map(b, duration('1h1m1s') + duration('1ms')))}",
    "huge integers": "${vars.long.map(a, vars.long.map(b, string(params.huge)))}",
    "many expressions": "${string(vars.long)}" * 40,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_exceeds_the_budget_of_the_event_loop(bomb: str) -> None:
    with pytest.raises(BudgetExceeded):
        value(bomb, steps=10_000, memory=1_000_000)


def test_a_walk_through_a_large_input_is_charged() -> None:
    with pytest.raises(BudgetExceeded):
        value(["x"] * 20_000, steps=10_000)


def test_a_long_string_is_not_evaluated_at_once() -> None:
    text = "${params.n}" + "x" * CHARACTERS_AT_ONCE
    with pytest.raises(BudgetExceeded):
        value(text, at_once=True)
    assert value(text).startswith("3x")


# ---------------------------------------------------------------- submission


def faults(*nodes: dict[str, Any], **fields: Any) -> list[str]:
    try:
        Graph.parse(graph(*nodes, **fields))
    except GraphError as error:
        return [str(fault) for fault in error.faults]
    return []


def with_input(value: Any, *after: str, node_id: str = "z", **fields: Any) -> dict[str, Any]:
    return node(node_id, "work", *after, io={"input_inline": value}, **fields)


A, B = node("a"), node("b", "work", "a")
BESIDE = node("beside")


@pytest.mark.parametrize(
    ("inline", "fault"),
    [
        ("${}", "'' is not a valid expression: expected a value, found the end (at character 3)"),
        ("${1 +}", "'1 +' is not a valid expression: expected a value, found the end (at char"),
        ("ab ${1 +}", "found the end (at character 9)"),
        ("${params.n", "is not a valid expression: it has no closing '}' (at character 3); write"),
        ("${ {'a': 1 }", "it has no closing '}'"),
        ("${'a}", "the string has no closing quote (at character 3)"),
        ("${a ; b}", "unexpected ';' (at character 5)"),
        ("${" + "a" * 5000 + "}", "it is longer than 4096 characters"),
        ("${" + "(" * 100 + "1" + ")" * 100 + "}", "is not a valid expression"),
        ("${missing(1)}", "unknown function missing() (at character 3)"),
        ("${size(1, 2)}", "size() takes"),
        ("${99999999999999999999}", "the number 99999999999999999999 exceeds 64 bits"),
        ("${x}", "uses the unknown name 'x' (at character 3); known names: params, vars, results"),
        ("ab ${1 + x}", "uses the unknown name 'x' (at character 10)"),
        ("${item.x}", "uses the unknown name 'item'"),
        ("${secrets}", "uses the unknown name 'secrets'"),
        ("${task.status}", "uses the unknown field 'task.status' (at character 3)"),
        ("${results.b}", "reads results of 'b', which is not upstream of this node"),
        ("${results.beside.n}", "reads results of 'beside', which is not upstream"),
        ("${results.z}", "reads results of 'z', which is not upstream"),
        ("${errors.beside.error}", "reads errors of 'beside', which is not upstream"),
        ("${results['no-node']}", "reads results of 'no-node', which is not in the graph"),
        ("${results.aa}", "reads results of 'aa', which is not in the graph; did you mean 'a'?"),
        ("${params.name.matches('(')}", "is not a valid expression"),
        ("${duration('soon')}", "is not a valid expression"),
        ("${a.?b}", "is not a valid expression"),
    ],
)
def test_a_wrong_expression_in_an_input_is_a_fault_with_its_place(inline: str, fault: str) -> None:
    found = faults(A, B, BESIDE, with_input({"x": [inline]}, "a"))
    assert len(found) == 1
    assert found[0].startswith("node 'z': /io/input_inline/x/0: ")
    assert fault in found[0]


@pytest.mark.parametrize(
    ("io", "fault"),
    [
        ({"input_ref": "${x}"}, "/io/input_ref: 'x' uses the unknown name"),
        ({"input_ref": {"a": "${x}"}}, "/io/input_ref/a: 'x' uses the unknown name"),
        (
            {"input_inline": {"input_adapter": "${params.a}"}},
            "input_adapter: expressions (${…}) are not supported here",
        ),
        (
            {"input_inline": {"input_adapter": "pull.from_artifacts", "input_args": "${x}"}},
            "/io/input_inline/input_args: 'x' uses the unknown name",
        ),
        (
            {
                "input_inline": {
                    "input_adapter": "pull.from_artifacts",
                    "input_args": {"from_nodes": ["${params.x}"]},
                }
            },
            "from_nodes: expressions (${…}) are not supported here; write the id of a node",
        ),
    ],
)
def test_other_fields_of_an_input_are_checked(io: dict[str, Any], fault: str) -> None:
    found = faults(A, node("z", "work", "a", io=io))
    assert any(fault in one for one in found), found


def test_arguments_of_a_function_are_checked_and_names_of_nodes_are_literal() -> None:
    def call(fn: str, **args: Any) -> list[str]:
        return faults(A, node("z", "coordinator_fn", "a", io={"fn": fn, "fn_args": args}))

    assert call("vars.set", kv={"n": "${results.a.n}"}) == []
    assert "/io/fn_args/kv/n: 'y' uses" in call("vars.set", kv={"n": "${y}"})[0]
    for fn, args in (
        ("merge.generic", {"from_nodes": "${params.x}", "target": "t"}),
        ("metrics.aggregate", {"node_id": "${params.x}"}),
    ):
        assert "are not supported here; write the id of a node" in call(fn, **args)[0]


def test_all_faults_of_expressions_are_listed_at_once() -> None:
    found = faults(
        A,
        with_input(["${x}", "${1 +}", "${results.z}"], "a", when="y"),
        with_input("${x}", "a", node_id="w"),
        node("v", "work", "nowhere"),
    )
    assert len(found) == 6


def test_expressions_see_all_nodes_above_and_a_graph_without_any_has_no_computed_nodes() -> None:
    document = graph(
        A,
        B,
        with_input(["${results.a}", "$${x}", {"k": "${errors.b} ${results[vars.x]}"}], "b"),
        with_input(["$", "{", "${"[:1]], "b", node_id="y"),
    )
    plan = Graph.parse(document).plan
    assert plan.computed == frozenset({2})
    assert input_needed(plan, 2) == {"results": [0, 1], "errors": [1]}
    assert input_needed_at_once(plan, 2) == input_needed(plan, 2)
    assert Graph.restore(Graph.parse(document).source).plan.computed == plan.computed
    assert Graph.parse(graph(A, B)).plan.computed == frozenset()


def test_the_expressions_of_inputs_are_limited_in_number_and_length() -> None:
    assert faults(*(with_input(["${params.n}"] * 50, node_id=f"n{n}") for n in range(100))) == []
    assert "more than 50000 expressions" in faults(with_input(["${1}" * 25_001] * 2))[0]
    texts = ["${'" + f"{n:04d}" * 1000 + "'}" for n in range(70)]
    assert "characters in total" in faults(with_input(texts))[0]


def test_finite_numbers_stay_as_they_are() -> None:
    assert math.copysign(1, value("${-0.0}")) == -1
    assert value("${1e300}") == 1e300


@pytest.mark.parametrize("over", ["${params.rows}", "${true ? params.rows : []}"])
def test_the_list_of_a_map_takes_no_steps_for_its_items(over: str):
    rows = [{"number": number} for number in range(1_000)]
    budget = Budget(2_000, 1_000)
    assert evaluate_items(over, {"params": {"rows": rows}}, budget) is rows


def test_a_list_that_an_expression_makes_takes_steps_for_its_items():
    rows = list(range(1_000))
    with pytest.raises(BudgetExceeded):
        evaluate_items("${params.rows.map(one, one)}", {"params": {"rows": rows}}, Budget(500, 500))
