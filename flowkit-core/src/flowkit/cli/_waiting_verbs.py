"""Verbs for tasks that wait: ``signal``, ``approvals``, ``decide``."""

from typing import Annotated

import typer
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._output import console, print_json, print_page, time_text
from flowkit.task import Approval, Page


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


def approvals(
    assignee: Annotated[
        str | None,
        typer.Option("--assignee", metavar="NAME", help="Only those about which NAME may decide."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of nodes.")] = 50,
    after: options.After = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List the nodes that wait for a decision.

    With --json, prints `{"items": [...], "next": ...}`. Pass `next` to --after to get the next
    page.
    """

    async def main() -> Page[Approval]:
        async with connected(config, db, bus) as client:
            return await client.approvals(assignee=assignee, limit=limit, after=after)

    page = run_async(main)
    if as_json:
        print_json({"items": page.items, "next": page.next})
        return
    out = console()
    rows = [
        (
            one.task_id,
            one.node_id,
            one.prompt,
            ", ".join(one.choices),
            ", ".join(one.assignees or ()),
            time_text(one.since),
        )
        for one in page.items
    ]
    columns = ("task", "node", "prompt", "choices", "assignees", "since")
    print_page(out, columns, rows, empty="no approvals", after=page.next)


def decide(
    task_id: options.TaskId,
    node_id: options.NodeId,
    choice: Annotated[str, typer.Argument(metavar="CHOICE", help="One of the node's choices.")],
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Name of the person who decides.")
    ],
    values: Annotated[
        str | None,
        typer.Option(
            "--values", metavar="JSON|@FILE", help="Values of the form: a JSON object, or @FILE."
        ),
    ] = None,
    comment: Annotated[str | None, typer.Option("--comment", help="Comment.")] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Decide about a node that waits for an approval.

    The first decision counts.
    """
    given = options.read_object(values, "--values")

    async def main() -> str:
        async with connected(config, db, bus) as client:
            await client.decide(task_id, node_id, choice, by=by, values=given, comment=comment)
            return str((await client.get_task(task_id)).status)

    status = run_async(main)
    if as_json:
        print_json({"task_id": task_id, "node_id": node_id, "choice": choice, "status": status})
    else:
        line = Text("node ").append(node_id).append(" of task ").append(task_id)
        console().print(line.append(" is decided: ").append(choice), soft_wrap=True)
