"""Verbs for cached results: ``cache rm``."""

import json
from typing import Annotated, Any

import typer

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._output import print_json


def rm(
    role: Annotated[
        str | None,
        typer.Argument(
            metavar="ROLE",
            help="Role of the nodes, or subflow for sub-flows with a graph of their own.",
        ),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option("--flow", metavar="NAME", help="Registered flow of sub-flows, not a role."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Only the result under this key: JSON, or a text that is not JSON.",
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Delete the cached results of a role or of a flow.

    The next nodes with these cache keys run. A result that is being computed is not stored.
    """

    async def main() -> int:
        async with connected(config, db, bus) as client:
            return await client.delete_cached(role, flow=flow, key=_value(key))

    if (role is None) == (flow is None):
        raise typer.BadParameter("give a role or --flow, and not both")
    deleted = run_async(main)
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"{deleted} {'result is' if deleted == 1 else 'results are'} deleted")


def _value(key: str | None) -> Any:
    """Return a key from the command line: as JSON, or as a text."""
    if key is None:
        return None
    try:
        value = json.loads(key, parse_constant=_no_constant)
    except ValueError:
        return key
    if value is None:
        raise typer.BadParameter("null is no cache key", param_hint="--key")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
