"""Graphs as pictures: Mermaid, Graphviz, and a tree of lines for a terminal."""

from collections.abc import Iterator
from dataclasses import dataclass

from flowkit.graph._graph import Graph
from flowkit.graph._models import COORDINATOR_FUNCTION, NodeSpec
from flowkit.graph._plan import Edge, Route

MAX_INDENT = 40

_ROUTE_WORDS = {Route.ALWAYS: "", Route.ON_SUCCESS: "success", Route.ON_FAILURE: "failure"}


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart, as GitHub and MkDocs draw it. Nodes are called ``n0``, ``n1``, … and
    labelled with their ids.
    """
    plan = graph.plan
    lines = ["flowchart TD"]
    for place, node in enumerate(plan.nodes):
        label = "<br/>".join(map(_mermaid_text, _labels(node)))
        opening, closing = ("[[", "]]") if node.type == COORDINATOR_FUNCTION else ("[", "]")
        lines.append(f'    n{place}{opening}"{label}"{closing}')
    for place, children in enumerate(plan.children):
        for edge in children:
            arrow = "-.->" if edge.streams else "-->"
            word = _edge_word(edge)
            lines.append(f"    n{place} {arrow}{f'|{word}|' if word else ''} n{edge.node}")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """A Graphviz digraph."""
    plan = graph.plan
    lines = [
        "digraph flow {",
        "    rankdir=TB;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
    ]
    for place, node in enumerate(plan.nodes):
        label = "\\n".join(map(_dot_text, _labels(node)))
        lines.append(
            f"    n{place}"
            f' [label="{label}"{", shape=component" if node.type == COORDINATOR_FUNCTION else ""}];'
        )
    for place, children in enumerate(plan.children):
        for edge in children:
            word = _edge_word(edge)
            marks = ([f'label="{word}"'] if word else []) + (
                ["style=dashed"] if edge.streams else []
            )
            attributes = f" [{', '.join(marks)}]" if marks else ""
            lines.append(f"    n{place} -> n{edge.node}{attributes};")
    return "\n".join([*lines, "}"]) + "\n"


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A line of a tree. ``prefix`` draws the branches; ``edge`` says how the node is reached, if
    not plainly.
    """

    prefix: str
    node_id: str
    details: str
    """Type, function, fan-in and condition."""
    edge: str = ""
    repeated: bool = False
    """The node was drawn above, with what is below it."""

    def __str__(self) -> str:
        edge = f"({self.edge}) " if self.edge else ""
        return f"{self.prefix}{edge}{self.node_id}{' ↑' if self.repeated else f'  {self.details}'}"


def tree_lines(graph: Graph) -> Iterator[TreeLine]:
    """The graph from its roots down. A node with several parents is drawn in full below the first,
    and named below the others.
    """
    plan = graph.plan
    drawn: set[int] = set()
    for root in plan.roots:
        stack = [(Edge(root, Route.ALWAYS, False), "", "")]
        while stack:
            edge, prefix, indent = stack.pop()
            node = plan.nodes[edge.node]
            repeated = edge.node in drawn
            drawn.add(edge.node)
            yield TreeLine(
                prefix, node.node_id, " ".join(_labels(node)[1:]), _edge_word(edge), repeated
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


def _labels(node: NodeSpec) -> list[str]:
    labels = [node.node_id, node.io.fn or node.type]
    if node.fan_in != "all":
        labels.append(f"fan-in {node.fan_in}")
    if node.when is not None:
        labels.append(f"when {' '.join(node.when.split())}")
    return labels


def _edge_word(edge: Edge) -> str:
    return "first batch" if edge.streams else _ROUTE_WORDS[edge.route]


def _mermaid_text(text: str) -> str:
    """Mermaid's own entities; what a label may not hold is written as the number of its
    character.
    """
    return "".join(
        char if char.isalnum() or char in " _-.,:/()=+" else f"#{ord(char)};" for char in text
    )


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
