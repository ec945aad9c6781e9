"""Diagrams of graphs: Mermaid, Graphviz, and a text tree for a terminal."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace

from pydantic_core import to_json

from flowkit._json.values import short
from flowkit.graph._control_types import CONTROL_TYPES, arguments_of
from flowkit.graph._expanded_plan import is_undo
from flowkit.graph._graph import Graph
from flowkit.graph._models import COORDINATOR_FUNCTION, MapSpec, NodeSpec
from flowkit.graph._nested_graphs import graph_of
from flowkit.graph._plan import Edge, Plan, Route

MAX_INDENT = 40

_BRACKETS = {COORDINATOR_FUNCTION: ("[[", "]]"), "control": ("([", "])")}
_SHAPES = {COORDINATOR_FUNCTION: ", shape=component", "control": ", shape=oval"}
_ROUTE_WORDS = {Route.ALWAYS: "", Route.ON_SUCCESS: "success", Route.ON_FAILURE: "failure"}


def to_mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart, as GitHub and MkDocs render it.

    Nodes are named ``n0``, ``n1``, … and labelled with their ids. A node that runs child tasks is a
    subgraph with the nodes of their graph: ``n0_0``, ``n0_1``, …
    """
    return "\n".join(["flowchart TD", *_indented(_mermaid_lines(graph, "n"))]) + "\n"


def _mermaid_lines(graph: Graph, name: str) -> Iterator[str]:
    """Yield the nodes and edges of a graph. ``name`` begins the names of its nodes."""
    plan = graph.plan
    for place, node in enumerate(plan.nodes):
        label = "<br/>".join(map(_mermaid_text, _labels(plan, place)))
        inner = _inner_graph(node)
        if inner is not None:
            yield f'subgraph {name}{place}["{label}"]'
            yield from _indented(_mermaid_lines(inner, f"{name}{place}_"))
            yield "end"
        else:
            opening, closing = _BRACKETS.get(_kind(node), ("[", "]"))
            yield f'{name}{place}{opening}"{label}"{closing}'
    for place, children in enumerate(plan.children):
        for edge in children:
            arrow = "-.->" if edge.streams else "-->"
            word = _edge_word(edge)
            yield f"{name}{place} {arrow}{f'|{word}|' if word else ''} {name}{edge.node}"
    if plan.ends is not None:
        for undo, undone in plan.ends.undone_by.items():
            yield f"{name}{undone} -.->|undo| {name}{undo}"
        if plan.ends.final:
            yield f'subgraph {name}_finally["finally"]'
            yield from _indented(f"{name}{place}" for place in plan.ends.final)
            yield "end"


def to_dot(graph: Graph) -> str:
    """Return a Graphviz digraph. A node that runs child tasks is in a cluster with the nodes of
    their graph.
    """
    lines = [
        "rankdir=TB;",
        'node [shape=box, style=rounded, fontname="sans-serif"];',
        *_dot_lines(graph, "n"),
    ]
    return "\n".join(["digraph flow {", *_indented(lines), "}"]) + "\n"


def _dot_lines(graph: Graph, name: str) -> Iterator[str]:
    """Yield the nodes and edges of a graph. ``name`` begins the names of its nodes."""
    plan = graph.plan
    for place, node in enumerate(plan.nodes):
        label = "\\n".join(map(_dot_text, _labels(plan, place)))
        yield f'{name}{place} [label="{label}"{_SHAPES.get(_kind(node), "")}];'
    for place, children in enumerate(plan.children):
        for edge in children:
            word = _edge_word(edge)
            marks = ([f'label="{word}"'] if word else []) + (
                ["style=dashed"] if edge.streams else []
            )
            attributes = f" [{', '.join(marks)}]" if marks else ""
            yield f"{name}{place} -> {name}{edge.node}{attributes};"
    final: Container[int] = () if plan.ends is None else plan.ends.final
    for place, node in enumerate(plan.nodes):
        if place not in final:
            yield from _dot_cluster(node, f"{name}{place}")
    if plan.ends is not None:
        for undo, undone in plan.ends.undone_by.items():
            yield f'{name}{undone} -> {name}{undo} [label="undo", style=dotted];'
        if plan.ends.final:
            yield f"subgraph cluster_{name}_finally {{"
            yield '    label="finally";'
            for place in plan.ends.final:
                yield f"    {name}{place};"
                yield from _indented(_dot_cluster(plan.nodes[place], f"{name}{place}"))
            yield "}"


def _dot_cluster(node: NodeSpec, name: str) -> Iterator[str]:
    """Yield the cluster of a node that runs child tasks, with the nodes of their graph."""
    inner = _inner_graph(node)
    if inner is not None:
        yield f"subgraph cluster_{name} {{"
        yield f'    label="{_dot_text(node.node_id)}";'
        yield f"    {name};"
        yield from _indented(_dot_lines(inner, f"{name}_"))
        for root in inner.plan.roots:
            yield f"    {name} -> {name}_{root} [style=dotted, arrowhead=none];"
        yield "}"


def _inner_graph(node: NodeSpec) -> Graph | None:
    """Return the graph of the child tasks of a node; None if it runs none."""
    graph = graph_of(node)
    return None if graph is None else Graph.restore(to_json(graph))


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


@dataclass(frozen=True, slots=True)
class TreeLine:
    """One line of a text tree.

    ``prefix`` draws the branches. ``edge`` names the kind of the edge to the node, unless it is a
    plain one.
    """

    prefix: str
    node_id: str
    details: str
    """Type, function, fan-in, ``optional``, map and condition."""
    edge: str = ""
    repeated: bool = False
    """True if an earlier line shows this node and its children."""

    def __str__(self) -> str:
        edge = f"({self.edge}) " if self.edge else ""
        return f"{self.prefix}{edge}{self.node_id}{' ↑' if self.repeated else f'  {self.details}'}"


def tree_lines(graph: Graph) -> Iterator[TreeLine]:
    """Yield the graph as a tree from its roots, then the nodes of ``finally``.

    A node with several parents is drawn with its children below the first one only. Below a node
    that runs child tasks, the tree of their graph comes first, behind a dotted line.
    """
    plan = graph.plan
    drawn: set[int] = set()
    later = () if plan.ends is None else plan.ends.final
    final_roots = [place for place in later if not plan.parents[place]]
    for root in (*plan.roots, *final_roots):
        stack = [(Edge(root, Route.ALWAYS, False), "", "")]
        while stack:
            edge, prefix, indent = stack.pop()
            node = plan.nodes[edge.node]
            repeated = edge.node in drawn
            drawn.add(edge.node)
            word = "finally" if edge.node in final_roots else _edge_word(edge)
            yield TreeLine(
                prefix, node.node_id, " ".join(_labels(plan, edge.node)[1:]), word, repeated
            )
            children = () if repeated else plan.children[edge.node]
            inner = None if repeated else _inner_graph(node)
            if inner is not None:
                margin = f"{indent}{'│' if children else ' '} ┊ "
                for line in tree_lines(inner):
                    yield replace(line, prefix=margin + line.prefix)
            for number, child in reversed(list(enumerate(children, start=1))):
                last = number == len(children)
                deeper = (
                    indent
                    if len(indent) >= 4 * MAX_INDENT
                    else indent + ("    " if last else "│   ")
                )
                stack.append((child, indent + ("└── " if last else "├── "), deeper))


def _labels(plan: Plan, place: int) -> list[str]:
    node = plan.nodes[place]
    control = CONTROL_TYPES.get(node.type)
    what = node.io.fn or node.type if control is None else control.label(arguments_of(node))
    labels = [node.node_id, what]
    if node.fan_in != "all":
        labels.append(f"fan-in {node.fan_in}")
    if node.optional and not is_undo(plan, place):
        labels.append("optional")
    if node.undo is not None:
        labels.append(f"undo {node.undo.io.fn or node.undo.type}")
    if node.map is not None and not is_undo(plan, place):
        labels.append(f"map over {_over(node.map)}")
    if node.io.shards is not None:
        labels.append(f"{node.io.shards} shards")
    if node.when is not None:
        labels.append(f"when {' '.join(node.when.split())}")
    return labels


def _kind(node: NodeSpec) -> str:
    return "control" if node.type in CONTROL_TYPES else node.type


def _over(spec: MapSpec) -> str:
    """Return what a map runs over, in a few words."""
    over = spec.over
    if spec.source is not None:
        return f"artifacts of {short(spec.source)[1:-1]}"
    return short(" ".join(over.split()))[1:-1] if isinstance(over, str) else f"{len(over)} items"


def _edge_word(edge: Edge) -> str:
    return "first batch" if edge.streams else _ROUTE_WORDS[edge.route]


def _mermaid_text(text: str) -> str:
    """Escape a label with Mermaid's numeric entities."""
    return "".join(
        char if char.isalnum() or char in " _-.,:/()=+" else f"#{ord(char)};" for char in text
    )


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
