"""Verbs that change a task, or repeat it: ``cancel``, ``pause``, ``resume``, ``retry``, ``rerun``,
``run-now``, ``resolve``.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.text import Text

from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._output import console, print_json, status_text
from flowkit.client import Client
from flowkit.client._resolutions import OUTCOMES
from flowkit.task import ResolvedAs

Change = Callable[[Client], Awaitable[None]]


def _change(
    change: Change,
    task_id: str,
    db: str | None,
    bus: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Apply a change and print the status of the task, and whether nothing was changed."""

    async def version(client: Client) -> int | None:
        record = (await client.store.load([task_id])).get(task_id)
        return None if record is None else record.version

    async def main() -> tuple[bool, str]:
        async with connected(config, db, bus) as client:
            before = await version(client)
            await change(client)
            unchanged = await version(client) == before
            return unchanged, str((await client.get_task(task_id)).status)

    unchanged, status = run_async(main)
    if unchanged:
        typer.echo(printable(f"nothing to do: task {task_id} was {status} before"), err=True)
    if as_json:
        print_json({"task_id": task_id, "status": status})
    else:
        console().print(
            Text("task ").append(task_id).append(" is ").append_text(status_text(status)),
            soft_wrap=True,
        )


def cancel(
    task_id: options.TaskId,
    reason: Annotated[
        str, typer.Option("--reason", help="Reason for the cancellation; handlers can read it.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="End its undos and the nodes of finally, too.")
    ] = False,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Cancel a task.

    Running nodes are asked to stop. After a grace period they are terminated. Then undos and the
    nodes of finally run. A task that has ended is not changed.
    """
    _change(
        lambda client: client.cancel(task_id, reason, force=force),
        task_id,
        db,
        bus,
        config,
        as_json,
    )


def pause(
    task_id: options.TaskId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Pause a task and the tasks below it: start no new nodes.

    Running nodes continue.
    """
    _change(lambda client: client.pause(task_id), task_id, db, bus, config, as_json)


def resume(
    task_id: options.TaskId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Resume a task and all paused tasks below it."""
    _change(lambda client: client.resume(task_id), task_id, db, bus, config, as_json)


def retry(
    task_id: options.TaskId,
    from_nodes: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NODE",
            help="Start at this node instead of the failed ones. A node below a failed or skipped"
            " one needs that one too; repeatable.",
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Retry a failed or cancelled task. Finished nodes are kept."""
    _change(
        lambda client: client.retry(task_id, from_nodes=from_nodes or None),
        task_id,
        db,
        bus,
        config,
        as_json,
    )


def rerun(
    task_id: options.TaskId,
    params: options.Params = None,
    flow_version: Annotated[
        int | None,
        typer.Option(
            "--flow-version", min=1, metavar="NUMBER", help="Another version of its flow."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", help="A second rerun with this key returns the same task id."
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Submit the graph and the params of a task as a new task, and print its id.

    --params replace those of the same names.
    """
    changed = options.read_params(params)

    async def main() -> str:
        async with connected(config, db, bus) as client:
            return await client.rerun(
                task_id,
                params=changed,
                flow_version=flow_version,
                idempotency_key=idempotency_key,
            )

    created = run_async(main)
    if as_json:
        print_json({"task_id": created, "rerun_of": task_id})
    else:
        typer.echo(created)


def run_now(
    task_id: options.TaskId,
    node_id: options.NodeId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """End the pause of a node: before its next attempt or round, or a sleep."""
    _change(lambda client: client.run_now(task_id, node_id), task_id, db, bus, config, as_json)


def resolve(
    task_id: options.TaskId,
    node_id: options.NodeId,
    outcome: Annotated[
        str, typer.Argument(metavar="OUTCOME", help=f"One of {', '.join(OUTCOMES)}.")
    ],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Name of the operator.")],
    result: Annotated[
        str | None,
        typer.Option(
            "--result", metavar="JSON|@FILE", help="Result of a finished node: JSON, or @FILE."
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Reason for the resolution.")] = "",
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Settle a node that has not ended, as finished, failed or skipped.

    What runs is stopped, and the task goes on.
    """
    value = options.read_value(result, "--result")

    async def change(client: Client) -> None:
        await client.resolve_node(
            task_id, node_id, cast("ResolvedAs", outcome), by=by, result=value, reason=reason
        )

    _change(change, task_id, db, bus, config, as_json)
