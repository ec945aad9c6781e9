"""Nodes whose results and errors the expressions of a node read."""

from collections.abc import Iterable

from flowkit._expressions import InvalidExpression
from flowkit.graph._conditions import nodes_read
from flowkit.graph._plan import Plan
from flowkit.graph._templates import CHARACTERS_AT_ONCE, expressions_in

EDGES_AT_ONCE = 1_000
"""Edges above a node. Beyond this, expressions that may read any result above are delayed."""

NodesNeeded = dict[str, list[int]]
"""Nodes by variable: ``results``, ``errors``."""


def nodes_needed(
    plan: Plan, index: int, expressions: Iterable[str], *, most_edges: int | None = None
) -> NodesNeeded | None:
    """Return the nodes that expressions of a node read; None if they may read any node above and
    more than ``most_edges`` edges lead to these.
    """
    above: list[int] | None = None
    needed: dict[str, dict[int, None]] = {}
    for expression in expressions:
        for name, nodes in nodes_read(expression).items():
            known = needed.setdefault(name, {})
            if nodes is not None:
                known.update((plan.index[node], None) for node in nodes if node in plan.index)
                continue
            if above is None:
                above = nodes_above(plan, index, most_edges=most_edges)
            if above is None:
                return None
            known.update(dict.fromkeys(above))
    return {name: list(nodes) for name, nodes in needed.items()}


def input_needed(plan: Plan, index: int) -> NodesNeeded:
    """Return the nodes that the input of a node reads. This may take long."""
    needed = nodes_needed(plan, index, expressions_in(plan.nodes[index].io.__dict__))
    assert needed is not None
    return needed


def input_needed_at_once(plan: Plan, index: int) -> NodesNeeded | None:
    """Return the nodes that the input of a node reads; None if it takes long to find them, or an
    expression is not valid any more.
    """
    try:
        expressions = list(expressions_in(plan.nodes[index].io.__dict__))
        if sum(map(len, expressions)) > CHARACTERS_AT_ONCE:
            return None
        return nodes_needed(plan, index, expressions, most_edges=EDGES_AT_ONCE)
    except InvalidExpression:
        return None


def nodes_above(plan: Plan, index: int, *, most_edges: int | None = None) -> list[int] | None:
    """Return all nodes above a node; None if more than ``most_edges`` edges lead to them."""
    found: dict[int, None] = {}
    grow = [index]
    edges = 0
    while grow:
        parents = plan.parents[grow.pop()]
        edges += len(parents)
        if most_edges is not None and edges > most_edges:
            return None
        for edge in parents:
            if edge.node not in found:
                found[edge.node] = None
                grow.append(edge.node)
    return sorted(found)
