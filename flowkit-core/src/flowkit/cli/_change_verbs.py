"""Verbs that change a task: ``cancel``, ``pause``, ``resume``, ``retry``."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._output import console, print_json, status_text
from flowkit.client import Client

Change = Callable[[Client], Awaitable[None]]


def _change(
    change: Change,
    task_id: str,
    db: str | None,
    bus: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Make a change, and say where the task is now."""

    async def main() -> str:
        async with connected(config, db, bus) as client:
            await change(client)
            return str((await client.get_task(task_id)).status)

    status = run_async(main)
    if as_json:
        print_json({"task_id": task_id, "status": status})
    else:
        console().print(
            Text("task ").append(task_id).append(" is ").append_text(status_text(status)),
            soft_wrap=True,
        )


def cancel(
    task_id: options.TaskId,
    reason: Annotated[str, typer.Option("--reason", help="Why; handlers see it.")] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Stop a task.

    What runs is asked to end, and cut off after a grace. An ended task stays as it is.
    """
    _change(lambda client: client.cancel(task_id, reason), task_id, db, bus, config, as_json)


def pause(
    task_id: options.TaskId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Begin no further node of a task.

    What runs goes on.
    """
    _change(lambda client: client.pause(task_id), task_id, db, bus, config, as_json)


def resume(
    task_id: options.TaskId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """End a pause."""
    _change(lambda client: client.resume(task_id), task_id, db, bus, config, as_json)


def retry(
    task_id: options.TaskId,
    from_nodes: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="NODE", help="Begin at this node, not at the failed ones; repeatable."
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Run a failed or cancelled task again, keeping what is finished."""
    _change(
        lambda client: client.retry(task_id, from_nodes=from_nodes or None),
        task_id,
        db,
        bus,
        config,
        as_json,
    )
