"""Verbs for triggers: ``trigger put``, ``ls``, ``pause``, ``resume`` and ``rm``."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from flowkit._text.redaction import printable
from flowkit._triggers import Trigger, TriggerView
from flowkit.cli import _options as options
from flowkit.cli._connection import configuration, connected, run_async
from flowkit.cli._definition_documents import read_definition
from flowkit.cli._output import compact, console, print_json, table
from flowkit.client import Client

TriggerId = Annotated[str, typer.Argument(metavar="ID", help="Id of the trigger.")]


def put(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Trigger document: JSON, TOML or YAML."),
    ],
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph", metavar="FILE", help="Flow of the trigger, if it is not in the document."
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Store a trigger, in place of the one with the same id.

    The document has the fields of a `Trigger`: `id`, `source`, `graph` and so on.
    """
    trigger = read_definition(file, graph, Trigger, configuration(config, db, bus).limits)

    async def main() -> TriggerView:
        async with connected(config, db, bus) as client:
            return await client.put_trigger(trigger)

    view = run_async(main)
    if as_json:
        print_json(view)
    else:
        typer.echo(printable(f"trigger {view.id} is stored"))


def ls(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List all triggers."""

    async def main() -> list[TriggerView]:
        async with connected(config, db, bus) as client:
            return await client.list_triggers(behind=True)

    views = run_async(main)
    if as_json:
        print_json({"items": views})
        return
    rows = [
        (
            view.id,
            view.trigger.source,
            compact(view.trigger.when or ""),
            view.trigger.flow or "its graph",
            "paused" if view.paused else "active",
            "?" if view.behind is None else f"{view.behind:,}",
        )
        for view in views
    ]
    columns = ("trigger", "source", "when", "runs", "state", "behind")
    console().print(table(None, columns, rows) if rows else "no triggers")


def pause(
    trigger_id: TriggerId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Pause a trigger: make no tasks. Its events are kept until it is resumed."""
    _change(trigger_id, lambda client: client.pause_trigger, config, db, bus)
    _print_change(trigger_id, "paused", as_json)


def resume(
    trigger_id: TriggerId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """End the pause of a trigger: make the tasks of the events that came meanwhile."""
    _change(trigger_id, lambda client: client.resume_trigger, config, db, bus)
    _print_change(trigger_id, "resumed", as_json)


def rm(
    trigger_id: TriggerId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Delete a trigger. Its tasks stay."""
    _change(trigger_id, lambda client: client.delete_trigger, config, db, bus)
    _print_change(trigger_id, "deleted", as_json)


def _change(
    trigger_id: str,
    verb: Callable[[Client], Callable[[str], Awaitable[None]]],
    config: Path | None,
    db: str | None,
    bus: str | None,
) -> None:
    async def main() -> None:
        async with connected(config, db, bus) as client:
            await verb(client)(trigger_id)

    run_async(main)


def _print_change(trigger_id: str, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"trigger": trigger_id, what: True})
    else:
        typer.echo(printable(f"trigger {trigger_id} is {what}"))
