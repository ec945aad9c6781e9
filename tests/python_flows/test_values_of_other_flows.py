"""Values of a flow that are used in another one."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit import Graph, GraphError, TaskStatus, approval, finally_, flow, loop, subflow
from flowkit.flows import NodeRef, iteration, task_vars, this_task
from flowkit.flows.functions import vars_set
from flowkit_testing import Cluster
from tests.python_flows.handlers import HANDLERS, note, square
from tests.python_flows.mistakes import line_of

BY_ROLE = {str(one.role): one for one in HANDLERS}
TASK_ID = this_task.id
OTHERS = "belongs to another flow; give its value to this flow as a param"
uses: dict[str, Callable[[Any], Any]] = {}


def used(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add a use of a value of the outer flow in the inner one."""
    uses[function.__name__.replace("_", " ")] = function
    return function


@used
def as_an_argument(value: Any) -> Any:
    square(value)  # here


@used
def in_a_list(value: Any) -> Any:
    square([1, {"a": value}])  # here


@used
def an_attribute(value: Any) -> Any:
    square(value.rows)  # here


@used
def as_a_place_in_a_list(value: Any) -> Any:
    square(task_vars.rows[value])  # here


@used
def in_a_text(value: Any) -> Any:
    note(f"n: {value}")  # here


@used
def in_an_expression_of_a_text(value: Any) -> Any:
    note(f"${{{value} + 1}}")  # here


@used
def in_a_condition(value: Any) -> Any:
    square.options(when=value > 3)(1)  # here


@used
def in_the_text_of_a_condition(value: Any) -> Any:
    square(1).options(when=f"{value} > 3")  # here


@used
def in_a_part_of_a_condition(value: Any) -> Any:
    square(1).options(when=(this_task.id == "a") & ~(value == 3))  # here


@used
def as_the_values_of_a_map(value: Any) -> Any:
    square.map(value)  # here


@used
def as_an_item_of_a_map(value: Any) -> Any:
    square.map([1, value])  # here


@used
def as_a_fixed_argument_of_a_map(value: Any) -> Any:
    plain.map([1], text=value)  # here


@used
def as_a_param_of_a_flow_inside(value: Any) -> Any:
    subflow(plain, value)  # here


@used
def in_the_condition_of_a_loop(value: Any) -> Any:
    loop(plain, iteration, until=lambda result: result > value)  # here


@used
def as_the_limit_of_a_loop(value: Any) -> Any:
    loop(plain, 1, until="true", max_iterations=value)  # here


@used
def in_an_undo(value: Any) -> Any:
    square(1).undo(lambda result: note(f"{result} {value}"))  # here


@used
def in_finally(value: Any) -> Any:
    with finally_():
        square(value)  # here


@used
def as_an_argument_of_a_function(value: Any) -> Any:
    vars_set({"a": value})  # here


@used
def in_an_approval(value: Any) -> Any:
    approval(f"really {value}?")  # here


@flow
def plain(n: int, text: str = "") -> NodeRef[int]:
    return square(n)


@pytest.mark.parametrize("use", uses.values(), ids=uses)
def test_a_param_of_another_flow_cannot_be_used(use: Callable[[Any], Any]) -> None:
    @flow
    def outer(n: Any) -> Any:
        @flow
        def inner(n: Any) -> Any:
            use(outer_n)

        outer_n = n
        return subflow(inner, 1)

    with pytest.raises(GraphError, match=OTHERS) as caught:
        outer.build_graph()
    assert str(caught.value).endswith(f", line {line_of(use)})")


@pytest.mark.parametrize(
    "output", [lambda n: n, lambda n: {"n": n}, lambda n: [n, 1], lambda n: f"{n}"]
)
def test_an_output_cannot_have_a_param_of_another_flow(output: Callable[[Any], Any]) -> None:
    @flow
    def outer(n: int) -> Any:
        @flow
        def inner(items: int) -> Any:
            square(items)
            return output(n)

        return inner.map([1])

    with pytest.raises(GraphError, match=f"params.n {OTHERS}"):
        outer.build_graph()


@pytest.mark.parametrize("made", ["the task", "vars", "a text", "the task that ends", "a result"])
def test_a_value_of_the_task_of_another_flow_cannot_be_used(made: str) -> None:
    @flow
    def outer() -> Any:
        with finally_() as ending:
            values = {
                "the task": this_task.id,
                "vars": task_vars.n,
                "a text": f"{this_task.id}-{task_vars}",
                "the task that ends": ending.id,
            }

            @flow
            def inner() -> Any:
                note(f"{values[made]}")

            if made != "a result":
                subflow(inner)
        square(1).undo(lambda result: values.update({"a result": result}) or subflow(inner))  # type: ignore[func-returns-value]

    with pytest.raises(GraphError, match=OTHERS):
        outer.build_graph()


@pytest.mark.parametrize("kind", ["a document", "a graph", "a function of a graph", "a default"])
def test_a_graph_inside_cannot_have_a_text_with_a_value(kind: str) -> None:
    @flow
    def outer(n: int) -> Any:
        made = Graph()
        made.node("a", "note", input_inline=f"n: {n}")

        @flow
        def function(g: Graph) -> None:
            g.node("a", "note", input_inline=f"n: {n}")

        @flow
        def default(text: str = f"n: {n}") -> Any:
            return note(text)

        flows: dict[str, Any] = {
            "a document": {
                "nodes": [{"node_id": "a", "type": "note", "io": {"input_inline": f"n: {n}"}}]
            },
            "a graph": made,
            "a function of a graph": function,
            "a default": default,
        }
        subflow(flows[kind])

    error = (
        r"the text 'n: \$\{params.n\}' is fixed when the flow is built.*give the value as a param"
    )
    with pytest.raises(GraphError, match=error) as caught:
        outer.build_graph()
    assert f"({__file__}, line " in str(caught.value)


def test_a_value_of_a_flow_inside_cannot_be_used_outside() -> None:
    params: list[Any] = []

    @flow
    def inner(n: int) -> Any:
        params.append(n)
        return square(n)

    @flow
    def outer(n: int) -> Any:
        subflow(inner, n)
        return square(params[-1])

    with pytest.raises(GraphError, match="return it from the flow it belongs to"):
        outer.build_graph()


def test_the_value_given_to_a_condition_cannot_be_used_in_another_one() -> None:
    values: list[Any] = []

    @flow
    def outer() -> Any:
        loop(plain, iteration, until=lambda result: values.append(result) or result > 1)  # type: ignore[func-returns-value]
        loop(plain, iteration, until=lambda _: values[0] > 1)

    with pytest.raises(GraphError, match="previous > 1 has a meaning only in the function that"):
        outer.build_graph()


def test_the_result_given_to_an_undo_cannot_be_used_in_another_one() -> None:
    values: list[Any] = []

    @flow
    def outer() -> Any:
        square(1).undo(lambda result: note(f"{values.append(result)}{result}"))  # type: ignore[func-returns-value]
        square(2).undo(lambda: note(f"{values[0]}"))

    with pytest.raises(GraphError, match="result has a meaning only in the function that it was"):
        outer.build_graph()


def test_a_value_of_an_earlier_build_cannot_be_used() -> None:
    known: list[Any] = []

    @flow
    def kept(n: int) -> Any:
        known.append(n)
        return square(known[0])

    kept.build_graph()
    with pytest.raises(GraphError, match=f"params.n {OTHERS}"):
        kept.build_graph()


async def test_a_value_of_another_flow_is_given_as_a_param(flowkit_cluster: Cluster) -> None:
    @flow
    def outer(n: int, items: list[int]) -> Any:
        @flow
        def inner(n: int, limit: int) -> Any:
            return note.options(when=n < limit)(f"{n} of {limit}, {this_task.id == TASK_ID}")

        return inner.map(items, limit=n)

    view = await flowkit_cluster.run(outer, params={"n": 2, "items": [1, 2]}, handlers=BY_ROLE)
    assert view.status == TaskStatus.FINISHED, view.error
    assert view.result == ["1 of 2, true", None]


async def test_values_of_the_task_are_those_of_the_flow_in_which_they_are_used(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def inner(outside: str) -> Any:
        return note(f"{this_task.id != outside} {this_task.id == outside}")

    @flow
    def outer() -> Any:
        return subflow(inner, this_task.id)

    view = await flowkit_cluster.run(outer, handlers=BY_ROLE)
    assert view.result == "true false", view.error
