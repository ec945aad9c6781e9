"""Maps of handlers, coordinator functions and flows in a flow in Python."""

from collections.abc import Iterable, Mapping, Sequence, Set
from inspect import Parameter, formatannotation
from types import GenericAlias
from typing import Any, Literal, Protocol, TypeVar, overload

from flowkit._flow_building.building import FlowBuilding, required_flow
from flowkit._flow_building.drafts import Draft
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.phases import check_same_phase
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.streams import takes
from flowkit._flow_building.values import ITEM, MapRef, NodeRef, Value, node_of

R = TypeVar("R")
Item = TypeVar("Item")
R_co = TypeVar("R_co", covariant=True)
Item_contra = TypeVar("Item_contra", contravariant=True)


class MakesNode(Protocol[Item_contra, R_co]):
    """Handler or coordinator function that is called with one argument."""

    def __call__(self, item: Item_contra, /) -> NodeRef[R_co]: ...


class MakesNodeOfMore(Protocol[Item_contra, R_co]):
    """Handler or coordinator function that may be called with more than one argument. Types cannot
    say which ones are fixed for all items, so they are checked when the flow is built.
    """

    def __call__(
        self, item: Item_contra, second: Any, /, *more: Any, **named: Any
    ) -> NodeRef[R_co]: ...


class Mapped(Protocol):
    """Handler, coordinator function or flow of a map."""

    __name__: str

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Parameters aside from the context, with their annotations."""

    def new_draft(self, flow: FlowBuilding) -> Draft:
        """Add a node that calls it, without its input."""

    def written_io(self, writer: InputWriter, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the input of its node with these arguments."""


class Mappable:
    """Handler or coordinator function that a map can call."""

    @overload
    def map(
        self: MakesNode[Item, R],
        values: Iterable[Item],
        /,
        *,
        max_parallel: int | None = None,
        on_item_failure: Literal["fail", "continue"] = "fail",
    ) -> MapRef[R]: ...
    @overload
    def map(
        self: MakesNodeOfMore[Item, R],
        values: Iterable[Item],
        /,
        *,
        max_parallel: int | None = None,
        on_item_failure: Literal["fail", "continue"] = "fail",
        **fixed: Any,
    ) -> MapRef[R]: ...
    def map(
        self: Any,
        /,
        *values: Any,
        max_parallel: int | None = None,
        on_item_failure: str = "fail",
        **fixed: Any,
    ) -> MapRef[Any]:
        """Make a node that calls this function for each value of a list, or for each artifact of a
        node that yields, as it is stored.

        A value is the first argument of its call, and ``fixed`` are the other ones. The value of
        the node is the list of the results.
        """
        return map_node(
            self, values, fixed, max_parallel=max_parallel, on_item_failure=on_item_failure
        )


def map_node(
    mapped: Mapped,
    values: Sequence[Any],
    fixed: Mapping[str, Any],
    *,
    max_parallel: int | None,
    on_item_failure: str,
) -> MapRef[Any]:
    """Make a node that calls a handler or a coordinator function, or runs a flow, for each value of
    a list, as its first argument. ``values`` has this list, and ``fixed`` the other arguments.

    Raises:
        GraphError: no flow is being built, or the arguments are wrong. The message names their
            line.
    """
    name, parameters = mapped.__name__, mapped.parameters
    flow = required_flow(f"{name}.map makes a node")
    if not parameters:
        raise flow_error(f"{name}.map: {name} has no parameter for the items")
    first = parameters[0]
    if first.name in fixed:
        raise flow_error(f"{name}.map: {first.name!r} is the item; give the items as the values")
    if len(values) != 1:
        raise flow_error(
            f"{name}.map takes one list of values, not {len(values)} arguments; give the other"
            f" arguments of {name} by name"
        )
    given = arguments(name, parameters, (flow.value(ITEM),), fixed)
    draft, writer = mapped.new_draft(flow), flow.writer()
    if isinstance(values[0], NodeRef) and not node_of(values[0]).draft.has_result:
        over = _artifacts(flow, draft, values[0], first, f"the argument {first.name!r} of {name}")
    else:
        what = f"the values of {name}.map"
        over = writer.argument(_items(name, values[0]), _list_of(first), what)
    fields: dict[str, Any] = {"over": over}
    if max_parallel is not None:
        fields["max_parallel"] = writer.option("max_parallel", max_parallel)
    if on_item_failure != "fail":
        fields["on_item_failure"] = writer.option("on_item_failure", on_item_failure)
    draft.fields["map"] = fields
    draft.io |= mapped.written_io(writer, given)
    return MapRef(node_of(flow.node(draft, writer, list[Any])))


def _artifacts(
    flow: FlowBuilding, draft: Draft, values: NodeRef[Any], parameter: Parameter, what: str
) -> dict[str, str]:
    """Return the artifacts of a node as the items of a map, which becomes a child of that node."""
    source = flow.draft_of(values)
    if not takes(parameter, {}, what):
        raise flow_error(
            f"{what} is an artifact of {source.node_id!r}, which is an object; it is declared as"
            f" {formatannotation(parameter.annotation)}"
        )
    check_same_phase(draft, [source])
    draft.parents[source] = None
    source.is_named = True
    return {"artifacts": source.node_id}


def _items(name: str, values: Any) -> Any:
    """Return the values as a value of the flow, or as a list."""
    if isinstance(values, Value):
        return values
    if isinstance(values, Set):
        raise flow_error(f"{name}.map: a set has no order; give a list, such as sorted(...)")
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)):
        return list(values)
    raise flow_error(
        f"{name}.map takes a list, or a value of the flow that is a list, not {values!r:.80}"
    )


def _list_of(parameter: Parameter) -> Any:
    """Return the type of the values of which one is given for a parameter."""
    annotation = Any if parameter.annotation is Parameter.empty else parameter.annotation
    return GenericAlias(list, (annotation,))
