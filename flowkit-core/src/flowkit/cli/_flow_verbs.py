"""Verbs for registered flows: ``flow put``, ``flow ls``, ``flow show`` and ``flow diff``."""

from typing import Annotated

import typer
from pydantic_core import to_json
from rich.text import Text

from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._flow_differences import differences, lines_of_difference
from flowkit.cli._graph_verbs import print_tree
from flowkit.cli._loader import load_flow
from flowkit.cli._output import console, print_facts, print_json, print_page, time_text
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.task import FlowInfo, FlowVersion

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the flow.")]


def put(
    name: Name,
    file: options.FlowFile,
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="Description of the version.")
    ] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Register a flow under a name, as the next version.

    If the latest version has the same graph, no version is added, and --description replaces that
    of the latest one. With --json, prints the version with its graph.
    """
    flow = load_flow(file, Plugins())

    async def main() -> FlowVersion:
        async with connected(config, db, bus) as client:
            return await client.put_flow(name, flow.graph, description=description)

    stored = run_async(main)
    if as_json:
        print_json(stored)
    else:
        typer.echo(printable(f"{stored.name} is registered as version {stored.version}"))


def ls(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List the registered flows with their latest versions, by name."""

    async def main() -> list[FlowInfo]:
        async with connected(config, db, bus) as client:
            return await client.list_flows()

    flows = run_async(main)
    if as_json:
        print_json(flows)
        return
    rows = [
        (one.name, one.version, time_text(one.created_at), one.description)
        if one.fault is None
        else (one.name, None, None, f"error: {one.fault}")
        for one in flows
    ]
    columns = ("name", "version", "created", "description")
    print_page(console(), columns, rows, empty="no flows", after=None)


def show(
    name: Name,
    version: options.Version = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a version of a registered flow as a tree, or with --json with its graph as a document.

    Without --version, this is the latest one.
    """

    async def main() -> FlowVersion:
        async with connected(config, db, bus) as client:
            return await client.get_flow(name, version)

    found = run_async(main)
    if as_json:
        print_json(found)
        return
    out = console()
    facts = {
        "flow": found.name,
        "version": str(found.version),
        "created": time_text(found.created_at),
        "description": found.description,
    }
    print_facts(out, facts)
    print_tree(Graph.restore(to_json(found.graph)))


def diff(
    name: Name,
    before: Annotated[
        int | None,
        typer.Option(
            "--from", min=1, metavar="N", help="Version to compare. Default: the one before."
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--to", min=1, metavar="N", help="Version to compare with. Default: the latest one."
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Compare two versions of a registered flow.

    Prints the lines of the two graphs that differ. With --json, prints the ids of the nodes that
    were added, removed and changed, and the names of the other fields of the graph that differ.
    """

    async def main() -> tuple[FlowVersion, FlowVersion]:
        async with connected(config, db, bus) as client:
            new = await client.get_flow(name, after)
            number = before or max(new.version - 1, 1)
            return await client.get_flow(name, number), new

    old, new = run_async(main)
    if as_json:
        print_json(differences(old, new))
        return
    lines = lines_of_difference(old, new)
    for line in lines or [f"versions {old.version} and {new.version} have the same graph"]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[0], "") if lines else ""
        console().print(Text(printable(line), style=style), soft_wrap=True)
