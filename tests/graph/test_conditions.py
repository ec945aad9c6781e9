"""The expressions of ``when``."""

from typing import Any

import pytest

from flowkit.errors import NodeFailure
from flowkit.graph import Graph, check_condition, evaluate_condition
from flowkit.graph.conditions import MAX_TOTAL_LENGTH


def holds(expression: str, **scope: Any) -> bool:
    assert check_condition(expression) is None
    return evaluate_condition(expression, **{"params": {}, "vars": {}, "results": {}, **scope})


def test_a_condition_sees_params_vars_and_results() -> None:
    scope = {"params": {"n": 3}, "vars": {"sla": "gold"}, "results": {"count": {"n": 4}, "a.b": {"ok": True}}}
    assert holds("vars.sla == 'gold' && results.count.n > params.n", **scope)
    assert holds("results['a.b'].ok", **scope)
    assert not holds("results.count.n < 4", **scope)
    assert holds("has(vars.sla) && !has(vars.other)", **scope)


def test_a_condition_may_look_through_lists() -> None:
    assert holds("params.xs.all(x, x > 0) && params.xs.exists(y, y == 2)", params={"xs": [1, 2, 3]})
    assert holds("size(params.xs.filter(x, x > 1)) == 2", params={"xs": [1, 2, 3]})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("vars.sla == 'gold'", "there is no 'sla'"),
        ("params", "it is dict, neither true nor false"),
        ("1", "it is int, neither true nor false"),
        ("params.n > 'a'", "No such overload"),
        ("nobody(1) == 1", "Undefined variable or function: 'nobody'"),
        ("params.n / 0 == 1", "division by zero"),
        ("params.xs[5] == 1", "index out of bounds"),
        ("1 +", "Failed to parse"),
    ],
)
def test_what_cannot_be_decided_fails_the_node_for_good(expression: str, why: str) -> None:
    with pytest.raises(NodeFailure, match="cannot be decided") as caught:
        evaluate_condition(expression, params={"n": 1, "xs": []}, vars={}, results={})
    assert (caught.value.reason_code, caught.value.permanent) == ("bad_condition", True)
    assert why in str(caught.value)


def test_a_name_bound_by_one_loop_is_known_and_others_are_not() -> None:
    assert check_condition("vars.xs.exists(x, x.n == y)") == "uses 'y'; there are only params, vars and results"


def test_the_expressions_of_a_graph_together_are_limited_and_equal_ones_count_once() -> None:
    long = "vars.x == '" + "x" * 4000 + "'"
    count = MAX_TOTAL_LENGTH // len(long) + 1
    nodes = [{"node_id": f"n{place}", "type": "x", "when": long} for place in range(count)]
    assert Graph.parse({"nodes": nodes})
    for place, node in enumerate(nodes):
        node["when"] = f"vars.n != {place} && {long}"
    with pytest.raises(ValueError, match="the 'when' expressions have more than 524288 characters together"):
        Graph.parse({"nodes": nodes})
