"""Verbs for flows that are not run: ``graph check`` and ``graph show``."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._errors import USAGE
from flowkit.cli._loader import load_flow
from flowkit.cli._output import console, print_json
from flowkit.errors import GraphError
from flowkit.graph import FlowRef, Graph
from flowkit.graph._conditions import NAMES, names_in_scope
from flowkit.graph._diagrams import to_dot, to_mermaid, tree_lines
from flowkit.graph._expression_checks import NO_NAMES, own_names
from flowkit.graph._nodes_read import nodes_above
from flowkit.graph._schema_properties import nested_defaults
from flowkit.plugins import Plugins

MOST_NODES = 200
"""Nodes whose names are shown."""
MOST_NAMES = 20
"""Names of a kind that are shown in a text; JSON has all."""

Scope = dict[str, list[str]]
"""Names that expressions can read, each with its known parts."""


def check(file: options.FlowFile, as_json: options.Json = False) -> None:
    """Check a flow and list all its faults. For a valid one, show the names that the expressions of
    each node, and of the output, can read.

    The exit status is 2 if there are any faults.
    """
    try:
        flow = load_flow(file, Plugins())
    except GraphError as error:
        if not as_json:
            raise
        print_json(
            {
                "file": file,
                "ok": False,
                "faults": [
                    {"node_id": fault.node_id, "message": fault.message} for fault in error.faults
                ],
            }
        )
        raise typer.Exit(USAGE) from None
    plan = flow.graph.plan
    if as_json:
        said = {
            "file": file,
            "ok": True,
            "faults": [],
            "nodes": len(plan.ids),
            "roles": sorted(flow.roles),
            "scopes": dict(_scopes(flow.graph)),
        }
        if plan.output is not None:
            said["scope_of_output"] = _scope(flow.graph, None)
        if flows := _named_flows(flow.graph):
            said["flows"] = [{"name": one.name, "version": one.version} for one in flows]
        if notes := _notes(flow.graph):
            said["notes"] = notes
        print_json(said)
        return
    roles = ", ".join(sorted(flow.roles)) or "none"
    edges = sum(map(len, plan.children))
    console().print(
        f"{file} is valid: {_count(len(plan.ids), 'node')}, {_count(edges, 'edge')};"
        f" roles: {roles}",
        soft_wrap=True,
    )
    if flows := _named_flows(flow.graph):
        names = ", ".join(map(str, flows[:MOST_NAMES]))
        console().print(
            Text(printable(f"it runs these registered flows, which are not checked: {names}")),
            soft_wrap=True,
        )
    for node_id, scope in _scopes(flow.graph):
        _print_scope(f"expressions of {node_id} see", scope)
    if plan.output is not None:
        _print_scope("the output sees", _scope(flow.graph, None))
    for note in _notes(flow.graph):
        console().print(Text(printable(f"note: {note}")), soft_wrap=True)


def _named_flows(graph: Graph) -> list[FlowRef]:
    """Return the registered flows that a graph names."""
    return list(dict.fromkeys(use.flow for use in graph.flow_uses))


def _notes(graph: Graph) -> list[str]:
    """Return what may surprise in a valid graph."""
    places = islice(nested_defaults(graph.document.params or {}), MOST_NAMES)
    return [
        f"the default of {place} is not filled in: only top-level properties of params get their"
        " defaults"
        for place in places
    ]


def _scopes(graph: Graph) -> Iterator[tuple[str, Scope]]:
    """Yield the names that the expressions of each node can read, for nodes with expressions."""
    plan = graph.plan
    readers = (
        index
        for index, node in enumerate(plan.nodes)
        if node.when is not None or node.map is not None or index in plan.computed
    )
    for index in islice(readers, MOST_NODES):
        yield plan.ids[index], _scope(graph, index)


def _scope(graph: Graph, index: int | None) -> Scope:
    """Return the names that the expressions of a node can read, or the output if ``index`` is
    None.
    """
    plan, schema = graph.plan, graph.document.params or {}
    own = NO_NAMES if index is None else own_names(plan.nodes[index])
    names = names_in_scope(plan.ends, index, own)
    above = [plan.ids[node] for node in nodes_above(plan, index) or ()]
    return {
        "params": sorted(schema.get("properties", ())),
        "vars": [],
        "results": above,
        "errors": above,
        "task": list(names.task),
        **{name: [] for name in names.names if name not in NAMES},
    }


def _print_scope(head: str, scope: Scope) -> None:
    names = ", ".join(
        f"{name} ({_names(parts)})" if parts else name for name, parts in scope.items()
    )
    console().print(Text(printable(f"{head} {names}")), soft_wrap=True)


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES:,} more"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show(
    file: options.FlowFile,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print a Graphviz digraph.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show a flow as a tree, as a diagram, or with --json as a document."""
    if mermaid + dot + as_json > 1:
        raise typer.BadParameter(
            "choose one of --mermaid, --dot and --json", param_hint="--mermaid"
        )
    graph = load_flow(file, Plugins()).graph
    if as_json:
        print_json(graph.to_dict())
    elif mermaid or dot:
        typer.echo(printable(to_mermaid(graph) if mermaid else to_dot(graph), lines=True), nl=False)
    else:
        print_tree(graph)


def print_tree(graph: Graph) -> None:
    """Print a graph as a tree."""
    out = console()
    for line in tree_lines(graph):
        text = Text(line.prefix, style="dim")
        if line.edge:
            text.append(f"({line.edge}) ", style="yellow")
        text.append(line.node_id, style="bold")
        text.append(" ↑" if line.repeated else f"  {line.details}", style="dim")
        out.print(text, soft_wrap=True)
