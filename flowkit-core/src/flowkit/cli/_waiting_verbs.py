"""Verbs for tasks that wait: ``signal``."""

from typing import Annotated

import typer
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._output import console, print_json


def signal(
    task_id: options.TaskId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the signal.")],
    payload: Annotated[
        str | None,
        typer.Option("--payload", metavar="JSON|@FILE", help="Payload: JSON, or @FILE."),
    ] = None,
    signal_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Id of the signal; one id counts once."),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Send a signal to a task.

    The node that has waited for this signal the longest takes it. If no node waits yet, the signal
    is kept for the next one.
    """
    value = options.read_value(payload, "--payload")

    async def main() -> str:
        async with connected(config, db, bus) as client:
            await client.signal(task_id, name, value, signal_id=signal_id)
            return str((await client.get_task(task_id)).status)

    status = run_async(main)
    if as_json:
        print_json({"task_id": task_id, "signal": name, "status": status})
    else:
        console().print(
            Text("task ").append(task_id).append(" has the signal ").append(name), soft_wrap=True
        )
