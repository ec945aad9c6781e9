"""Values of the nodes that finish first."""

from typing import Any, Literal, TypeVar

from flowkit._flow_building.drafts import Expression
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.values import NodeRef, Value, expression_of, node_of

R = TypeVar("R")
RESTS = ("leave", "cancel")


def first(count: int, *nodes: NodeRef[R], rest: Literal["leave", "cancel"] = "leave") -> list[R]:
    """Return the results of the nodes that finish first, as a value for one argument.

    The node that takes the value starts when ``count`` of ``nodes`` have finished. The value is the
    list of the results that are there when it starts, in the order of ``nodes``. A node that
    finished with None counts, and is left out: the list may be shorter than ``count``, and longer
    if more nodes have finished by then. ``rest="cancel"`` cancels the others.

    Raises:
        GraphError: the arguments are wrong. The message names their line.
    """
    for one in nodes:
        if not isinstance(one, NodeRef):
            raise flow_error(f"first takes nodes, the values of calls, not {type(one).__name__}")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(nodes):
        raise flow_error(
            f"first: the count must be from 1 to {len(nodes)}, the number of nodes, not"
            f" {count!r:.80}"
        )
    if rest not in RESTS:
        raise flow_error(f"first: rest must be 'leave' or 'cancel', not {rest!r:.80}")
    if len({id(node_of(one).draft) for one in nodes}) < len(nodes):
        raise flow_error("first: a node is given twice")
    results = [expression_of(one) for one in nodes]
    made: Any = Value(
        Expression(
            f"[{', '.join(one.source for one in results)}].filter(one, one != null)",
            counted={node: None for one in results for node in one.parents},
            fan_in={"fan_in": f"count:{count}", "on_satisfied": rest},
        )
    )
    return made  # type: ignore[no-any-return]
