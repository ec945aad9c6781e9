"""Loops, as a function of a flow in Python."""

from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar, overload

from flowkit._flow_building import NodeRef, Value, required_flow
from flowkit._flow_building.drafts import Expression
from flowkit._flow_building.places import flow_error
from flowkit.flows._flow import Flow
from flowkit.flows._subflow import AnyGraph, ChildFlow

R = TypeVar("R")

previous: Any = Value(Expression("previous"))
"""Result of the previous round of a loop, as a value for its params and conditions; null in the
first round.
"""
iteration: int = Value(Expression("iteration"))
"""Number of the round of a loop, from 0, as a value for its params and conditions."""


@overload
def loop(
    flow: Flow[..., R],
    /,
    *args: Any,
    until: str | bool | Callable[[R], Any],
    max_iterations: int = 100,
    delay_sec: float = 0.0,
    **params: Any,
) -> NodeRef[R]: ...
@overload
def loop(
    flow: Flow[..., R],
    /,
    *args: Any,
    while_: str | bool | Callable[[R], Any],
    max_iterations: int = 100,
    delay_sec: float = 0.0,
    **params: Any,
) -> NodeRef[R]: ...
@overload
def loop(
    flow: AnyGraph,
    /,
    *,
    until: str | bool | Callable[[Any], Any],
    max_iterations: int = 100,
    delay_sec: float = 0.0,
    **params: Any,
) -> NodeRef[Any]: ...
@overload
def loop(
    flow: AnyGraph,
    /,
    *,
    while_: str | bool | Callable[[Any], Any],
    max_iterations: int = 100,
    delay_sec: float = 0.0,
    **params: Any,
) -> NodeRef[Any]: ...
def loop(
    flow: Any,
    /,
    *args: Any,
    until: Any = None,
    while_: Any = None,
    max_iterations: int = 100,
    delay_sec: float = 0.0,
    **params: Any,
) -> NodeRef[Any]:
    """Make a node that runs a flow or a graph again and again, each round as a task of its own. Its
    value is the result of the last round.

    The other arguments are the params of each round. ``until`` ends the loop after a round,
    ``while_`` is checked before each one. A condition is an expression, a value, or a function of
    the result of the previous round::

        status = loop(ask, job, until=lambda status: status.ready, delay_sec=60)

    Raises:
        GraphError: no flow is being built, the arguments do not fit, or the flow contains itself.
            The message names the line.
    """
    building = required_flow("loop makes a node")
    name, condition = _condition(until, while_)
    child = ChildFlow.of(building, "loop", flow)
    draft, writer = building.new_node(child.name, "loop"), building.writer()
    if callable(condition) and not isinstance(condition, Value):
        with building.given("previous", child.returns) as result:
            with building.condition(name):
                condition = _called(name, condition, result)
            written = writer.condition(condition, name)
    else:
        written = writer.condition(condition, name)
    draft.io |= child.io(writer, args, params) | {name: written}
    rounds = writer.value(max_iterations, "the argument 'max_iterations' of loop")
    delay = writer.seconds(delay_sec, "the argument 'delay_sec' of loop")
    if rounds != 100:
        draft.io["max_iterations"] = rounds
    if delay != 0:
        draft.io["delay_sec"] = delay
    return building.node(draft, writer, child.returns)


def _condition(until: Any, while_: Any) -> tuple[str, Any]:
    """Return the condition that is given, with the name of its field."""
    both = {"until": until, "while": while_}
    given = [(name, value) for name, value in both.items() if value is not None]
    if len(given) != 1:
        raise flow_error("loop needs exactly one of until and while_")
    return given[0]


def _called(name: str, condition: Callable[..., Any], result: Value) -> Any:
    """Call the function of a condition with the result of the previous round."""
    if hasattr(condition, "role"):
        raise flow_error(
            f"{name}: a handler cannot be a condition; call it in the flow of the rounds, and"
            " return what it finds"
        )
    try:
        signature(condition).bind(result)
    except TypeError as error:
        raise flow_error(
            f"{name}: {error}; a condition is a function of the result of a round, such as"
            " lambda result: result.ready"
        ) from None
    return condition(result)
