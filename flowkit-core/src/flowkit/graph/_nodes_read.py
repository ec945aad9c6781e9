"""Nodes whose results and errors the expressions of a node, or of the output of a graph, read."""

from collections.abc import Iterable, Iterator

from flowkit._expressions import InvalidExpression
from flowkit.graph._conditions import nodes_read
from flowkit.graph._control_types import input_expressions
from flowkit.graph._expanded_plan import node_of
from flowkit.graph._plan import Plan
from flowkit.graph._templates import CHARACTERS_AT_ONCE, expressions_in_output

EDGES_AT_ONCE = 1_000
"""Edges above a node, or nodes above the output. Beyond this, expressions that may read any result
above are delayed.
"""

NodesNeeded = dict[str, list[int]]
"""Nodes by variable: ``results``, ``errors``."""


def nodes_needed(
    plan: Plan, index: int | None, expressions: Iterable[str], *, most_edges: int | None = None
) -> NodesNeeded | None:
    """Return the nodes that expressions read: those of a node, or of the output if ``index`` is
    None. Return None if they may read any node above and more than ``most_edges`` edges lead to
    these.
    """
    above: list[int] | None = None
    needed: dict[str, set[int]] = {}
    for expression in expressions:
        for name, nodes in nodes_read(expression).items():
            known = needed.setdefault(name, set())
            if nodes is not None:
                known.update(plan.index[node] for node in nodes if node in plan.index)
                continue
            if above is None:
                above = nodes_above(plan, index, most_edges=most_edges)
            if above is None:
                return None
            known.update(above)
    return {name: sorted(nodes) for name, nodes in needed.items()}


def input_needed(plan: Plan, index: int) -> NodesNeeded:
    """Return the nodes that the input of a node reads. This may take long."""
    needed = nodes_needed(plan, index, input_expressions(plan.nodes[index]))
    assert needed is not None
    return needed


def output_needed(plan: Plan) -> NodesNeeded:
    """Return the nodes that the output reads. This may take long."""
    needed = nodes_needed(plan, None, expressions_in_output(plan.output))
    assert needed is not None
    return needed


def input_needed_at_once(plan: Plan, index: int) -> NodesNeeded | None:
    """Return the nodes that the input of a node reads; None if it takes long to find them, or an
    expression is not valid any more.
    """
    return _needed_at_once(plan, index, input_expressions(plan.nodes[index]))


def output_needed_at_once(plan: Plan) -> NodesNeeded | None:
    """Return the nodes that the output reads; None as for :func:`input_needed_at_once`."""
    return _needed_at_once(plan, None, expressions_in_output(plan.output))


def _needed_at_once(plan: Plan, index: int | None, found: Iterator[str]) -> NodesNeeded | None:
    try:
        expressions = list(found)
        if sum(map(len, expressions)) > CHARACTERS_AT_ONCE:
            return None
        return nodes_needed(plan, index, expressions, most_edges=EDGES_AT_ONCE)
    except InvalidExpression:
        return None


def nodes_above(
    plan: Plan, index: int | None, *, most_edges: int | None = None
) -> list[int] | None:
    """Return all nodes above a node, or above the output if ``index`` is None; None if more than
    ``most_edges`` edges lead to them.
    """
    if index is None:
        size = plan.main
        return None if most_edges is not None and size > most_edges else list(range(size))
    found: dict[int, None] = {}
    index = node_of(plan, index)
    grow = [index]
    edges = 0
    if plan.ends is not None and index >= plan.ends.main:
        others = plan.ends.nodes_above(index)
        if most_edges is not None and len(others) > most_edges:
            return None
        found = dict.fromkeys(others)
        grow = [plan.ends.reader(index)]
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
