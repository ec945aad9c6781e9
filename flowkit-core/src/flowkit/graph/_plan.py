"""Execution plan of a valid graph: numbered nodes with their parents and children."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from pydantic_core import to_json

from flowkit.graph._control_types import (
    CONTROL_TYPES,
    flow_of,
    is_computed,
    with_control_defaults,
)
from flowkit.graph._later_phases import LaterPhases, later_phases, with_later_nodes
from flowkit.graph._models import (
    ALL_ENDED,
    COORDINATOR_FUNCTION,
    FlowRef,
    GraphDocument,
    NodeSpec,
    TaskConcurrency,
)
from flowkit.graph._nested_graphs import graph_of

BRANCH_ENDED = -3
"""Value in :attr:`Plan.need`: like ``ALL_ENDED``, for a node to which all its parents route. It is
skipped if no branch that leads to it was taken.
"""


class Route(IntEnum):
    """Outcome of the parent after which an edge is followed."""

    ALWAYS = 0
    ON_SUCCESS = 1
    ON_FAILURE = 2


class Edge(NamedTuple):
    """Edge, seen from one of its nodes."""

    node: int
    """Node at the other end."""
    route: Route
    streams: bool
    """True if the child may start on this parent's first batch.

    Always false for a route, which is decided when the parent ends.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """Execution plan of a task's graph.

    A node is identified by its position in ``nodes``, which is in document order. Nodes of later
    phases follow: those of ``finally``, then undos.
    """

    size: int
    """Number of nodes of the graph."""
    ids: Sequence[str]
    index: dict[str, int]
    nodes: Sequence[NodeSpec]
    children: Sequence[tuple[Edge, ...]]
    parents: Sequence[tuple[Edge, ...]]
    need: Sequence[int]
    """Parents that must succeed before a node starts: 0 for a root, or ``ALL``, ``ALL_ENDED`` or
    ``BRANCH_ENDED``.
    """
    roots: tuple[int, ...]
    """Nodes of the main phase without parents."""
    leaves: tuple[int, ...]
    """Nodes of the main phase without children."""
    order: tuple[int, ...]
    """Nodes in topological order."""
    rank: tuple[int, ...]
    """Position of each node in ``order``."""
    streamed: Sequence[bool]
    """True if a child may start on this node's first batch."""
    mixed: Sequence[bool]
    """True if the node streams from some parents and waits for the end of others."""
    sources: Sequence[tuple[int, ...]]
    """Nodes whose artifacts a node may pull: its parents, and the nodes that its input arguments
    name.
    """
    computed: Container[int]
    """Nodes with expressions in their input."""
    controls: frozenset[int]
    """Nodes of control types that wait."""
    nested: Mapping[int, bytes | FlowRef]
    """Graphs of child tasks as JSON, or the registered flows that have them, by the nodes of
    control types that run child tasks, and by maps of such nodes. Equal graphs are one object.
    """
    map_sources: Mapping[int, int]
    """Parent whose artifacts are the items, for each map that has such items."""
    on_node_failure: str
    deadline_sec: float | None
    max_parallel: int | None
    key: TaskConcurrency | None
    """Concurrency key of the task as a whole."""
    output: Any
    """Template of the task's result; None for the results of the nodes without children."""
    ends: LaterPhases | None = None
    """Nodes of later phases; None if there are none."""
    functions: tuple[int, ...] = ()
    """Coordinator functions of the main phase, if there are other nodes."""
    segments: str | None = None
    """Mode in which workers run chains of nodes; None for the choice of the coordinator."""

    @property
    def main(self) -> int:
        """Number of nodes of the main phase, which are the first ones."""
        return self.size if self.ends is None else self.ends.main

    def read_by(self, index: int) -> list[int]:
        """Return the nodes whose results a node sees: its parents; for an undo, its node."""
        if self.ends is not None and (undone := self.ends.undone_by.get(index)) is not None:
            return [undone]
        return [edge.node for edge in self.parents[index]]


def make_plan(document: GraphDocument) -> Plan:
    """Return the plan of a validated document."""
    ends = later_phases(document)
    document = with_later_nodes(document)
    nodes = document.nodes
    controls, nested = _control_nodes(nodes)
    if controls or nested:
        nodes = with_control_defaults(nodes)
    if len(nodes) == 1:
        return _plan_of_one(document, nodes[0], controls, nested)
    main = len(nodes) if ends is None else ends.main
    ids = tuple(node.node_id for node in nodes)
    index = {node_id: place for place, node_id in enumerate(ids)}
    share = _Shared()
    parents = tuple(share.edges(edges.values()) for edges in _edges_into(document, index))
    children: list[list[Edge]] = [[] for _ in nodes]
    for place, edges in enumerate(parents):
        for edge in edges:
            children[edge.node].append(Edge(place, edge.route, edge.streams))
    order = tuple(topological_order([[edge.node for edge in edges] for edges in parents]))
    return Plan(
        size=len(nodes),
        ids=ids,
        index=index,
        nodes=nodes,
        children=tuple(map(share.edges, children)),
        parents=parents,
        need=tuple(_need(node, edges) for node, edges in zip(nodes, parents, strict=True)),
        roots=tuple(place for place, edges in enumerate(parents[:main]) if not edges),
        leaves=tuple(place for place, edges in enumerate(children[:main]) if not edges),
        order=order,
        rank=tuple(sorted(range(len(order)), key=order.__getitem__)),
        streamed=tuple(any(edge.streams for edge in edges) for edges in children),
        mixed=tuple(len({edge.streams for edge in edges}) > 1 for edges in parents),
        sources=tuple(
            _sources(node, edges or _undone(ends, place), index)
            for place, (node, edges) in enumerate(zip(nodes, parents, strict=True))
        ),
        computed=frozenset(place for place, node in enumerate(nodes) if is_computed(node)),
        controls=controls,
        nested=nested,
        map_sources={
            place: index[node.map.source]
            for place, node in enumerate(nodes)
            if node.map is not None and node.map.source is not None
        },
        on_node_failure=document.on_node_failure,
        deadline_sec=document.deadline_sec,
        max_parallel=document.max_parallel,
        key=document.concurrency,
        output=document.output,
        ends=ends,
        functions=tuple(
            place for place in range(main) if nodes[place].type == COORDINATOR_FUNCTION
        ),
        segments=document.segments,
    )


def _control_nodes(
    nodes: Sequence[NodeSpec],
) -> tuple[frozenset[int], Mapping[int, bytes | FlowRef]]:
    """Return the control nodes that wait, and those that run child tasks with what these run."""
    waiting: set[int] = set()
    nested: dict[int, bytes | FlowRef] = {}
    graphs: dict[bytes, bytes] = {}
    for place, node in enumerate(nodes):
        control = CONTROL_TYPES.get(node.type)
        if control is None:
            continue
        if not control.runs_child:
            waiting.add(place)
        elif (flow := flow_of(node)) is not None:
            nested[place] = flow
        else:
            graph = to_json(graph_of(node))
            nested[place] = graphs.setdefault(graph, graph)
    return frozenset(waiting), nested


def _plan_of_one(
    document: GraphDocument,
    node: NodeSpec,
    controls: frozenset[int],
    nested: Mapping[int, bytes | FlowRef],
) -> Plan:
    index = {node.node_id: 0}
    return Plan(
        size=1,
        ids=(node.node_id,),
        index=index,
        nodes=(node,),
        children=((),),
        parents=((),),
        need=(0,),
        roots=(0,),
        leaves=(0,),
        order=(0,),
        rank=(0,),
        streamed=(False,),
        mixed=(False,),
        sources=(_sources(node, (), index),),
        computed=frozenset((0,) if is_computed(node) else ()),
        controls=controls,
        nested=nested,
        map_sources={},
        on_node_failure=document.on_node_failure,
        deadline_sec=document.deadline_sec,
        max_parallel=document.max_parallel,
        key=document.concurrency,
        output=document.output,
    )


def _undone(ends: LaterPhases | None, place: int) -> Sequence[Edge]:
    """Return an edge from the node of an undo, whose artifacts the undo may pull."""
    undone = None if ends is None else ends.undone_by.get(place)
    return () if undone is None else (Edge(undone, Route.ALWAYS, False),)


def _need(node: NodeSpec, parents: Sequence[Edge]) -> int:
    """Return the number of parents that must succeed, or a value that names another rule."""
    if not parents:
        return 0
    if node.need == ALL_ENDED and all(edge.route is not Route.ALWAYS for edge in parents):
        return BRANCH_ENDED
    return node.need


def _sources(node: NodeSpec, parents: Sequence[Edge], index: dict[str, int]) -> tuple[int, ...]:
    """Return the nodes whose artifacts a node may pull."""
    found = dict.fromkeys(edge.node for edge in parents)
    inline = node.io.input_inline
    arguments = inline.get("input_args") if isinstance(inline, dict) else None
    if isinstance(arguments, dict):
        many = arguments.get("from_nodes")
        for node_id in (arguments.get("from_node"), *(many if isinstance(many, list) else ())):
            if isinstance(node_id, str) and node_id in index:
                found[index[node_id]] = None
    return tuple(found)


class _Shared:
    """Pool of equal edges.

    Most nodes of a wide graph have equal edges, and the garbage collector visits each object.
    """

    def __init__(self) -> None:
        self._edges: dict[Edge, Edge] = {}
        self._ends: dict[tuple[Edge, ...], tuple[Edge, ...]] = {}

    def edges(self, edges: Iterable[Edge]) -> tuple[Edge, ...]:
        ends = tuple(self._edges.setdefault(edge, edge) for edge in edges)
        return self._ends.setdefault(ends, ends)


def _edges_into(document: GraphDocument, index: dict[str, int]) -> list[dict[int, Edge]]:
    """Return the parents of each node. A route replaces a plain edge between the same two nodes."""
    into: list[dict[int, Edge]] = []
    for node in document.nodes:
        streams = node.io.start_when == "first_batch"
        mapped = None if node.map is None else node.map.source
        into.append(
            {
                index[parent]: Edge(index[parent], Route.ALWAYS, streams or parent == mapped)
                for parent in node.depends_on
            }
        )
    for edge in document.edges:
        source = index[edge.source]
        into[index[edge.to]][source] = Edge(source, Route.ALWAYS, True)
    for place, node in enumerate(document.nodes):
        for route, targets in (
            (Route.ON_SUCCESS, node.routing.on_success),
            (Route.ON_FAILURE, node.routing.on_failure),
        ):
            for target in targets:
                into[index[target]][place] = Edge(place, route, False)
    return into


def topological_order(parents: list[list[int]]) -> list[int]:
    """Return the nodes in topological order, without those on a cycle or downstream of one."""
    children: list[list[int]] = [[] for _ in parents]
    missing = [len(above) for above in parents]
    for place, above in enumerate(parents):
        for parent in above:
            children[parent].append(place)
    order = [place for place, count in enumerate(missing) if count == 0]
    for place in order:
        for child in children[place]:
            missing[child] -= 1
            if missing[child] == 0:
                order.append(child)
    return order
