"""Maps of handlers in a flow in Python."""

from collections.abc import Iterable, Mapping
from inspect import Parameter
from types import GenericAlias
from typing import Any

from flowkit._flow_building.building import FlowBuilding
from flowkit._flow_building.drafts import Callee, Expression
from flowkit._flow_building.inputs import arguments
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.values import NodeRef, Value

ITEM = "item"
"""Name of the item in expressions, if ``map.as`` gives no other one."""


def map_node(
    flow: FlowBuilding,
    callee: Callee,
    values: Any,
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> NodeRef[Any]:
    """Make a node that calls a handler for each of some values, as its first argument.

    ``fixed`` are the other arguments, and ``options`` the other fields of the map.

    Raises:
        GraphError: the arguments are wrong. The message names their line.
    """
    name, parameters = callee.__name__, callee.parameters
    if not parameters:
        raise flow_error(f"{name}.map: {name} has no parameter for the items")
    first = parameters[0]
    if first.name in fixed:
        raise flow_error(f"{name}.map: {first.name!r} is the item; give the items as the values")
    item = Value(Expression(ITEM))
    given = arguments(name, parameters, (item,), fixed)
    draft = flow.handler_node(callee)
    writer = flow.writer()
    over = writer.argument(_items(name, values), _list_of(first), f"the values of {name}.map")
    draft.fields["map"] = {"over": over, **options}
    draft.io["input_inline"] = writer.arguments(callee, given)
    return flow.node(draft, writer, list[Any])


def _items(name: str, values: Any) -> Any:
    """Return the values as a value of the flow, or as a list."""
    if isinstance(values, Value):
        return values
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)):
        return list(values)
    raise flow_error(
        f"{name}.map takes a list, or a value of the flow that is a list, not {values!r:.80}"
    )


def _list_of(parameter: Parameter) -> Any:
    """Return the type of the values of which one is given for a parameter."""
    annotation = Any if parameter.annotation is Parameter.empty else parameter.annotation
    return GenericAlias(list, (annotation,))
