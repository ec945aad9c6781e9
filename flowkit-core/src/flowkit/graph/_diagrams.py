"""Diagrams of graphs: Mermaid, Graphviz, and a text tree for a terminal."""

from collections.abc import Iterator
from dataclasses import dataclass

from flowkit._json.values import short
from flowkit.graph._control_types import CONTROL_TYPES, arguments_of
from flowkit.graph._graph import Graph
from flowkit.graph._models import COORDINATOR_FUNCTION, MapSpec, NodeSpec
from flowkit.graph._plan import Edge, Plan, Route

MAX_INDENT = 40

_BRACKETS = {COORDINATOR_FUNCTION: ("[[", "]]"), "control": ("([", "])")}
_SHAPES = {COORDINATOR_FUNCTION: ", shape=component", "control": ", shape=oval"}
_ROUTE_WORDS = {Route.ALWAYS: "", Route.ON_SUCCESS: "success", Route.ON_FAILURE: "failure"}


def to_mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart, as GitHub and MkDocs render it.

    Nodes are named ``n0``, ``n1``, … and labelled with their ids.
    """
    plan = graph.plan
    lines = ["flowchart TD"]
    for place, node in enumerate(plan.nodes):
        label = "<br/>".join(map(_mermaid_text, _labels(plan, place)))
        opening, closing = _BRACKETS.get(_kind(node), ("[", "]"))
        lines.append(f'    n{place}{opening}"{label}"{closing}')
    for place, children in enumerate(plan.children):
        for edge in children:
            arrow = "-.->" if edge.streams else "-->"
            word = _edge_word(edge)
            lines.append(f"    n{place} {arrow}{f'|{word}|' if word else ''} n{edge.node}")
    if plan.ends is not None:
        for undo, undone in plan.ends.undone_by.items():
            lines.append(f"    n{undone} -.->|undo| n{undo}")
        if plan.ends.final:
            lines.append("    subgraph finally")
            lines += [f"        n{place}" for place in plan.ends.final]
            lines.append("    end")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """Return a Graphviz digraph."""
    plan = graph.plan
    lines = [
        "digraph flow {",
        "    rankdir=TB;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
    ]
    for place, node in enumerate(plan.nodes):
        label = "\\n".join(map(_dot_text, _labels(plan, place)))
        lines.append(f'    n{place} [label="{label}"{_SHAPES.get(_kind(node), "")}];')
    for place, children in enumerate(plan.children):
        for edge in children:
            word = _edge_word(edge)
            marks = ([f'label="{word}"'] if word else []) + (
                ["style=dashed"] if edge.streams else []
            )
            attributes = f" [{', '.join(marks)}]" if marks else ""
            lines.append(f"    n{place} -> n{edge.node}{attributes};")
    if plan.ends is not None:
        for undo, undone in plan.ends.undone_by.items():
            lines.append(f'    n{undone} -> n{undo} [label="undo", style=dotted];')
        if plan.ends.final:
            inside = " ".join(f"n{place};" for place in plan.ends.final)
            lines.append(f'    subgraph cluster_finally {{ label="finally"; {inside} }}')
    return "\n".join([*lines, "}"]) + "\n"


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

    A node with several parents is drawn with its children below the first one only.
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
    if node.optional and (plan.ends is None or place not in plan.ends.undos):
        labels.append("optional")
    if node.undo is not None:
        labels.append(f"undo {node.undo.io.fn or node.undo.type}")
    if node.map is not None:
        labels.append(f"map over {_over(node.map)}")
    if node.when is not None:
        labels.append(f"when {' '.join(node.when.split())}")
    return labels


def _kind(node: NodeSpec) -> str:
    return "control" if node.type in CONTROL_TYPES else node.type


def _over(spec: MapSpec) -> str:
    """Return what a map runs over, in a few words."""
    over = spec.over
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
