"""Maps of handlers in a flow in Python."""

from typing import Any

import pytest

from flowkit import finally_, first, flow
from flowkit.flows import Flow
from flowkit.flows.functions import CoordinatorFunction, noop, vars_incr, vars_merge
from flowkit_testing import Cluster
from tests.python_flows.handlers import (
    HANDLERS,
    Tenant,
    add,
    alert,
    double,
    extract,
    merge,
    note,
    numbers,
    refund,
    square,
)
from tests.python_flows.mistakes import Mistakes, check_mistake

BY_ROLE = {str(one.role): one for one in HANDLERS}
faulty = Mistakes()


def nodes(built: Flow[...]) -> dict[str, dict[str, Any]]:
    """Return the nodes of a flow as a document has them, by id."""
    return {node.pop("node_id"): node for node in built.build_graph().to_dict()["nodes"]}


def test_a_map_calls_a_handler_for_each_value_of_a_list() -> None:
    @flow
    def mapped(tenants: list[Tenant]) -> None:
        rows = extract.map(tenants, max_parallel=8)
        refund.map(rows, amount=rows[0].total, on_item_failure="continue").options(node_id="back")

    assert nodes(mapped) == {
        "extract": {
            "type": "extract",
            "retry_policy": {"max": 5},
            "map": {"over": "${params.tenants}", "max_parallel": 8},
            "io": {"input_inline": "${item}"},
        },
        "back": {
            "type": "refund",
            "depends_on": ["extract"],
            "map": {"over": "${results.extract}", "on_item_failure": "continue"},
            "io": {"input_inline": {"trip": "${item}", "amount": "${results.extract[0].total}"}},
        },
    }


def test_the_values_may_be_a_list_with_values_in_it() -> None:
    @flow
    def mapped(n: int) -> None:
        square.map([n, 3, square(2)])
        square.map(range(2))

    found = nodes(mapped)
    assert found["square_2"]["map"] == {"over": ["${params.n}", 3, "${results.square}"]}
    assert found["square_2"]["depends_on"] == ["square"]
    assert found["square_3"]["map"] == {"over": [0, 1]}


def test_a_map_may_be_over_the_first_results_of_some_nodes() -> None:
    @flow
    def mapped() -> None:
        square.map(first(1, square(2), square(3)))

    assert nodes(mapped)["square_3"]["fan_in"] == "count:1"


def test_a_map_calls_a_coordinator_function_for_each_value() -> None:
    @flow
    def mapped(names: list[str]) -> None:
        vars_incr.map(names, by=2, max_parallel=1)
        vars_merge.map([{"a": square(2)}])

    assert nodes(mapped) == {
        "vars_incr": {
            "type": "coordinator_fn",
            "map": {"over": "${params.names}", "max_parallel": 1},
            "io": {"fn": "vars.incr", "fn_args": {"key": "${item}", "by": 2}},
        },
        "square": {"type": "square", "io": {"input_inline": 2}},
        "vars_merge": {
            "type": "coordinator_fn",
            "depends_on": ["square"],
            "map": {"over": [{"a": "${results.square}"}]},
            "io": {"fn": "vars.merge", "fn_args": {"data": "${item}"}},
        },
    }


async def test_a_map_of_a_coordinator_function_runs(flowkit_cluster: Cluster) -> None:
    @flow
    def mapped(names: list[str]) -> Any:
        return vars_incr.map(names, by=2)

    view = await flowkit_cluster.run(mapped, handlers=BY_ROLE, params={"names": ["a", "b"]})
    assert view.error is None
    assert view.vars == {"a": 2, "b": 2}


async def test_the_results_of_a_map_are_a_value(flowkit_cluster: Cluster) -> None:
    @flow
    def mapped(tenants: list[Tenant], day: str) -> Any:
        rows = extract.map(tenants)
        return {"merged": merge(rows, day, scale=10).total, "texts": note.map(["a", day])}

    params = {"tenants": [{"name": "ab"}, {"name": "c"}], "day": "2026-01-01"}
    view = await flowkit_cluster.run(mapped, handlers=BY_ROLE, params=params)
    assert view.error is None
    assert view.result == {"merged": 30, "texts": ["a", "2026-01-01"]}
    assert view.nodes["extract[1]"].result == {"total": 1, "day": None}


# ---------------------------------------------------------------- artifacts


def test_a_map_over_a_node_that_yields_is_one_over_its_artifacts() -> None:
    @flow
    def mapped(upto: int) -> None:
        found = numbers.options(node_id="found")(upto)
        double.map(found, max_parallel=2).undo(add)
        add.map(double.stream(found))

    assert nodes(mapped)["double"] == {
        "type": "double",
        "depends_on": ["found"],
        "map": {"over": {"artifacts": "found"}, "max_parallel": 2},
        "io": {"input_inline": "${item}"},
        "undo": {"type": "add", "io": {"input_inline": "${result}"}},
    }
    assert nodes(mapped)["add"]["map"] == {"over": {"artifacts": "double_2"}}


async def test_handlers_and_flows_are_called_with_artifacts_as_they_are_stored(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def each(item: dict[str, Any], tenants: list[Tenant]) -> Any:
        return {"number": add(item)["number"], "name": tenants[0].name}

    @flow
    def mapped(upto: int) -> Any:
        found = numbers(upto)
        return [double.map(found), each.map(found, tenants=[{"name": "a"}])]

    view = await flowkit_cluster.run(mapped, handlers=BY_ROLE, params={"upto": 2})
    assert view.error is None
    assert view.result == [
        [{"number": 0}, {"number": 2}],
        [{"number": 0, "name": "a"}, {"number": 1, "name": "a"}],
    ]


# ---------------------------------------------------------------- mistakes


@faulty(
    "the argument 'n' of square is an artifact of 'numbers', which is an object; it is declared as"
)
def a_map_over_artifacts_of_a_handler_of_numbers() -> None:
    square.map(numbers(3))  # type: ignore[arg-type]  # here


@faulty("'double' is in finally_, whose nodes run when all others have ended, so 'numbers'")
def a_map_in_finally_over_artifacts_of_another_phase() -> None:
    found = numbers(3)
    with finally_():
        double.map(found)  # here


@faulty("the node_id 'numbers' is already in use by an expression")
def a_new_id_for_a_node_whose_artifacts_are_mapped() -> None:
    found = numbers(3)
    double.map(found)
    found.options(node_id="found")  # here


@faulty("square.map takes one list of values, not 2 arguments; give the other arguments of square")
def a_map_with_an_argument_by_position() -> None:
    square.map([1], 3)  # type: ignore[call-arg]  # here


@faulty("square.map takes one list of values, not 0 arguments")
def a_map_without_values() -> None:
    square.map(max_parallel=3)  # type: ignore[call-arg]  # here


@faulty("other.map needs to know the parameters; give the function, as in CoordinatorFunction('")
def a_map_of_a_coordinator_function_with_unknown_parameters() -> None:
    CoordinatorFunction("other").map([1])  # here


@faulty("noop.map: noop has no parameter for the items")
def a_map_of_a_coordinator_function_without_parameters() -> None:
    noop.map([1])  # type: ignore[misc,list-item]  # here


@faulty("the values of vars_incr.map does not match: 0: Input should be a valid string")
def a_map_of_a_coordinator_function_over_values_of_another_type() -> None:
    vars_incr.map([3])  # type: ignore[list-item]  # here


@faulty("alert.map: alert has no parameter for the items")
def a_map_of_a_handler_without_parameters() -> None:
    alert.map([1])  # type: ignore[misc,list-item]  # here


@faulty("square.map takes a list, or a value of the flow that is a list, not 'ab'")
def a_map_over_a_text() -> None:
    square.map("ab")  # type: ignore[arg-type]  # here


@faulty("square.map takes a list, or a value of the flow that is a list, not 3")
def a_map_over_a_number() -> None:
    square.map(3)  # type: ignore[arg-type]  # here


@faulty("the values of square.map does not match: 1: Input should be a valid integer")
def a_map_over_values_of_another_type() -> None:
    square.map([1, "x"])  # type: ignore[list-item]  # here


@faulty("square.map: 'n' is the item; give the items as the values")
def a_map_with_the_item_as_a_fixed_argument() -> None:
    square.map([1], n=3)  # type: ignore[call-arg]  # here


@faulty("has no parameter 'amuont'; did you mean 'amount'?")
def a_map_with_a_misspelt_argument() -> None:
    refund.map([], amuont=3)  # here


@faulty("missing a required argument: 'amount'")
def a_map_with_a_missing_argument() -> None:
    refund.map([])  # here


@faulty("map.max_parallel")
def a_map_without_a_place() -> None:
    square.map([1], max_parallel=0)  # here


@pytest.mark.parametrize("name", faulty.table)
def test_each_mistake_is_an_error_at_its_line(name: str) -> None:
    check_mistake(*faulty.table[name])


def test_a_map_outside_a_flow_is_an_error() -> None:
    with pytest.raises(Exception, match="square.map makes a node, so it is called in a @flow"):
        square.map([1])
