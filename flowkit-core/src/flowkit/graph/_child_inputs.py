"""Data that the children of a map see."""

from itertools import chain
from typing import NamedTuple

from flowkit._expressions import compile_expression
from flowkit.graph._conditions import nodes_read
from flowkit.graph._control_types import evaluated_fields
from flowkit.graph._expanded_plan import ExpandedPlan, map_of
from flowkit.graph._expression_checks import INDEX
from flowkit.graph._map_items import over_expressions
from flowkit.graph._plan import Plan
from flowkit.graph._templates import expressions_in, expressions_in_key


class ChildInput(NamedTuple):
    """Data that each child of a map sees."""

    parents: tuple[int, ...]
    """Parents whose results it sees: those that ``map.over`` does not read. Such results would
    travel to each child, which has its item instead.
    """
    names: frozenset[str]
    """Names of its own that its expressions read: the item, and ``index``."""


def child_input(plan: Plan, child: int) -> ChildInput:
    """Return what the children of a map see. Shards see what their node sees.

    Raises:
        InvalidExpression: an expression of the map is not valid any more.
    """
    assert isinstance(plan, ExpandedPlan)
    owner = map_of(plan, child)
    found = plan.child_inputs.get(owner)
    if not isinstance(found, ChildInput):
        found = plan.child_inputs[owner] = _input_of(plan, owner)
    return found


def _input_of(plan: Plan, index: int) -> ChildInput:
    node = plan.nodes[index]
    parents = {edge.node: None for edge in plan.parents[index]}
    for expression in over_expressions(node) if node.map is not None else ():
        for named in nodes_read(expression).values():
            for node_id in plan.ids[: plan.size] if named is None else named:
                parents.pop(plan.index[node_id], None)
    source = None if node.map is None else node.map.source
    if source is not None:
        parents.pop(plan.index[source], None)
    own = {node.map.as_, INDEX} if node.map is not None else set()
    names = {
        path[0]
        for expression in chain(
            expressions_in(*evaluated_fields(node)),
            expressions_in_key(node.key),
            expressions_in_key(node.rate_limit),
            expressions_in_key(node.cache),
        )
        for path in compile_expression(expression).paths
    }
    return ChildInput(tuple(parents), frozenset(own & names))
