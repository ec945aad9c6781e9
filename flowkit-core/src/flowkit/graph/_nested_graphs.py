"""Graphs inside graphs: those of the nodes that run child tasks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic_core import to_json

from flowkit.errors import GraphError
from flowkit.graph._control_types import CONTROL_TYPES, arguments_of, flow_of, runs_on_worker
from flowkit.graph._faults import NODE_LISTS, Faults
from flowkit.graph._later_phases import with_later_nodes
from flowkit.graph._models import FlowRef, GraphDocument, NodeSpec
from flowkit.graph._params_schema import params_faults, with_defaults
from flowkit.graph._templates import templates_in

MOST_NESTED = 32
"""Graphs inside graphs, without the outermost one."""
LEVELS_PER_GRAPH = 4
"""Levels of nested lists and objects from a graph to one of a node: nodes, the node, io, graph."""

ParseNested = Callable[[dict[str, Any]], GraphDocument]
"""Returns the valid document of a graph. Raises a GraphError if it has faults."""


def graph_of(node: NodeSpec) -> dict[str, Any] | None:
    """Return the graph of the child tasks of a node as it is written; None if it runs none."""
    control = CONTROL_TYPES.get(node.type)
    graph = arguments_of(node).get("graph") if control and control.runs_child else None
    return graph if isinstance(graph, dict) else None


def nesting(node: Any) -> int:
    """Return how deep graphs are nested in a node as it is written: 1 is a graph without others."""
    graph = _written_graph(node)
    if graph is None:
        return 0
    return 1 + max(map(nesting, _written_nodes(graph)), default=0)


def without_nested(source: Any) -> Any:
    """Return a graph as it is written without the graphs inside."""
    if not isinstance(source, dict):
        return source
    lists = {field: source[field] for field in NODE_LISTS if field in source}
    return source | {
        field: [_without_graph(node) for node in nodes]
        for field, nodes in lists.items()
        if isinstance(nodes, (list, tuple))
    }


def _without_graph(node: Any) -> Any:
    if _written_graph(node) is None:
        return node
    return node | {"io": node["io"] | {"graph": None}}


def _written_graph(node: Any) -> Any:
    """Return the graph of a node as it is written, or None. It may be anything."""
    io = node.get("io") if isinstance(node, dict) else None
    return io.get("graph") if isinstance(io, dict) else None


def _written_nodes(graph: Any) -> Iterator[Any]:
    for field in NODE_LISTS:
        nodes = graph.get(field) if isinstance(graph, dict) else None
        if isinstance(nodes, (list, tuple)):
            yield from nodes


def check_nested_graphs(faults: Faults, nodes: Iterable[NodeSpec], parse: ParseNested) -> None:
    """Check the graphs of child tasks, and the params that they get."""
    for node in nodes:
        graph = graph_of(node)
        if graph is None:
            continue
        try:
            schema = parse(graph).params
        except GraphError as error:
            for fault in error.faults:
                faults.add(node.node_id, f"io.graph: {fault}")
            continue
        params = fixed_params(node)
        if schema is None or params is None:
            continue
        for text in params_faults(schema, with_defaults(schema, params)):
            faults.add(node.node_id, f"io.{text}")


def fixed_params(node: NodeSpec) -> dict[str, Any] | None:
    """Return the params of the child tasks of a node; None if they have faults, or contain
    expressions, and so are checked when the node starts.
    """
    params = arguments_of(node).get("params", {})
    if not isinstance(params, dict) or any(templates_in({"params": params}, ("params",))):
        return None
    return params


def nodes_with_nested(
    nodes: Iterable[NodeSpec], top: NodeSpec | None = None
) -> Iterator[tuple[NodeSpec, NodeSpec]]:
    """Yield the nodes of a valid graph and of the graphs inside, each after the node of the outer
    graph in which it is.
    """
    for node in nodes:
        yield top or node, node
        graph = graph_of(node)
        if graph is not None:
            document = GraphDocument.model_validate_json(to_json(graph))
            yield from nodes_with_nested(with_later_nodes(document).nodes, top or node)


def graphs_in(nodes: Iterable[NodeSpec]) -> list[dict[str, Any]]:
    """Return the graphs inside of a valid graph, at any depth, as they are written."""
    return [graph for _, node in nodes_with_nested(nodes) if (graph := graph_of(node)) is not None]


class FlowUse(NamedTuple):
    """Node that runs a registered flow."""

    outer: NodeSpec
    """Node of the outer graph in which it is, or itself."""
    node: NodeSpec
    flow: FlowRef


def flow_uses(nodes: Iterable[NodeSpec]) -> list[FlowUse]:
    """Return the nodes of a valid graph and of the graphs inside that run registered flows."""
    return [
        FlowUse(top, node, flow)
        for top, node in nodes_with_nested(nodes)
        if (flow := flow_of(node)) is not None
    ]


def roles_of(nodes: Iterable[NodeSpec]) -> dict[str, list[str]]:
    """Return the roles that workers must serve for a valid graph and the graphs inside, each with
    its nodes of the outer graph.
    """
    roles: dict[str, list[str]] = {}
    for top, node in nodes_with_nested(nodes):
        if runs_on_worker(node.type):
            found = roles.setdefault(node.type, [])
            if top.node_id not in found:
                found.append(top.node_id)
    return roles
