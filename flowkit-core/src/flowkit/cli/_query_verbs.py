"""Verbs that read tasks: ``ls``, ``show``, ``nodes``, ``watch``, ``explain``, ``artifacts``,
``workers``.
"""

import shlex
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import closing, connected, run_async
from flowkit.cli._errors import task_exit
from flowkit.cli._live_view import follow
from flowkit.cli._missing_processes import missing_processes, print_missing
from flowkit.cli._output import (
    compact,
    console,
    details,
    duration,
    hidden_children,
    labels_text,
    print_end,
    print_facts,
    print_json,
    print_json_line,
    print_next,
    print_page,
    seconds_text,
    status_text,
    table,
    time_text,
)
from flowkit.cli._task_tree import TaskBranch, nodes_in_order, task_branches
from flowkit.cli._timeline import print_timeline
from flowkit.task import NodeStatus, NodeView, Page, TaskEvent, TaskView, WorkerView


@options.filtered
def ls(
    filters: dict[str, Any],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of tasks.")] = 50,
    after: options.After = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List tasks, newest first. They must match all options.

    With --json, prints `{"items": [...], "next": ...}`. Pass `next` to --after to get the next
    page.
    """

    async def main() -> Page[TaskView]:
        async with connected(config, db, bus) as client:
            try:
                return await client.list_tasks(**filters, limit=limit, after=after)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None

    page = run_async(main)
    if as_json:
        print_json({"items": page.items, "next": page.next})
        return
    out = console()
    rows = [
        (
            view.id,
            view.pipeline,
            status_text(view.status),
            time_text(view.created_at),
            seconds_text(duration(view)),
            view.parent,
            labels_text(view.labels),
        )
        for view in page.items
    ]
    columns = ("id", "pipeline", "status", "created", "took", "parent", "labels")
    print_page(out, columns, rows, empty="no tasks", after=page.next)


def _schedule(view: TaskView) -> str | None:
    at = view.schedule_at
    return None if at is None else f"{view.schedule}, nominal time {at.isoformat()}"


def show(
    task_id: options.TaskId,
    tree: Annotated[
        bool,
        typer.Option(
            "--tree", help="Show the nodes of the child tasks as well, of a map of up to 20."
        ),
    ] = False,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show the current state of a task and its nodes.

    With --tree and --json, prints the task and then its child tasks, one per line. Of each, the
    field omitted_child_tasks is the number of its own child tasks that are left out.
    """

    async def main() -> tuple[list[TaskBranch], list[str]]:
        async with connected(config, db, bus) as client:
            view = await client.get_task(task_id)
            branches = await task_branches(client, view) if tree else [TaskBranch(view)]
            return branches, await missing_processes(client, *(each.view for each in branches))

    branches, missing = run_async(main)
    view = branches[0].view
    if as_json and tree:
        for branch in branches:
            print_json_line(branch.to_dict())
        return
    if as_json:
        print_json(view)
        return
    out = console()
    facts = {
        "pipeline": view.pipeline,
        "flow": view.flow and f"{view.flow}, version {view.version}",
        "labels": labels_text(view.labels),
        "parent": view.parent and f"node {view.parent_node} of {view.parent}",
        "schedule": _schedule(view),
        "rerun of": view.rerun_of,
        "waits for": ", ".join(view.waits),
        "created": time_text(view.created_at),
        "params": compact(view.params or None),
        "vars": compact(view.vars or None),
    }
    print_facts(out, facts)
    _print_nodes(out, nodes_in_order(branches))
    for branch in branches:
        for node_id, hidden in hidden_children(branch.view).items():
            out.print(
                f"{hidden} more children of {node_id!r}: see"
                f" flowkit nodes {shlex.quote(branch.view.id)} --map {shlex.quote(node_id)}",
                soft_wrap=True,
            )
    if omitted := sum(branch.omitted for branch in branches):
        more = f"{omitted} more child task{'' if omitted == 1 else 's'}"
        out.print(f"{more}: run `flowkit show` with the id of one", style="dim", soft_wrap=True)
    print_end(out, view)
    print_missing(out, missing)


def _print_nodes(out: Console, nodes: Iterable[tuple[str, NodeView]]) -> None:
    """Print nodes, each with its name in the table."""
    rows = [
        (
            name,
            node.type,
            status_text(node.status),
            node.attempt or None,
            seconds_text(duration(node)),
            node.worker_id,
            details(node) or compact(node.metrics or node.progress),
        )
        for name, node in nodes
    ]
    out.print(table(None, ("node", "type", "status", "attempt", "took", "worker", "details"), rows))


def nodes(
    task_id: options.TaskId,
    map_id: Annotated[
        str | None, typer.Option("--map", metavar="NODE", help="Only the children of this map.")
    ] = None,
    status: Annotated[
        NodeStatus | None, typer.Option("--status", help="Only nodes with this status.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of nodes.")] = 100,
    after: options.After = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List the nodes of a task, with all children of its maps.

    With --json, prints `{"items": [...], "next": ...}`. Pass `next` to --after to get the next
    page.
    """

    async def main() -> Page[NodeView]:
        async with connected(config, db, bus) as client:
            try:
                return await client.nodes(
                    task_id, map=map_id, status=status, limit=limit, after=after
                )
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None

    page = run_async(main)
    if as_json:
        print_json({"items": page.items, "next": page.next})
        return
    if not page.items:
        console().print("no nodes")
        return
    _print_nodes(console(), ((node.node_id, node) for node in page.items))
    print_next(console(), page.next)


def watch(
    task_id: options.TaskId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    timeline: options.Timeline = False,
    as_json: options.Json = False,
) -> None:
    """Follow a task from its first event to its end.

    With --json, prints one event per line. The exit status is 1 if the task did not finish.
    """
    options.check_timeline(timeline, as_json)
    seen: list[TaskEvent] = []

    async def main() -> TaskView:
        async with connected(config, db, bus) as client:
            if not as_json:
                missing = await missing_processes(client, await client.get_task(task_id))
                print_missing(console(stderr=True), missing)
                return await follow(client, task_id, console(), notice=seen.append)
            async with closing(client.watch(task_id)) as events:
                async for event in events:
                    print_json_line(event)
            return await client.get_task(task_id)

    view = run_async(main)
    if timeline:
        print_timeline(console(), seen)
    if not as_json:
        print_end(console(), view)
    task_exit(view.status)


def explain(
    task_id: options.TaskId,
    node_id: options.NodeId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Explain why a node is not running."""

    async def main() -> str:
        async with connected(config, db, bus) as client:
            return await client.explain(task_id, node_id)

    sentence = run_async(main)
    if as_json:
        print_json({"task_id": task_id, "node_id": node_id, "explanation": sentence})
    else:
        typer.echo(printable(sentence))


def artifacts(
    task_id: options.TaskId,
    node_id: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Only artifacts of this node.")
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Print the artifacts of a task, one per line, in order of production."""

    async def main() -> None:
        async with (
            connected(config, db, bus) as client,
            closing(client.artifacts(task_id, node_id)) as found,
        ):
            async for artifact in found:
                if as_json:
                    print_json_line(artifact)
                else:
                    kind = "batch" if artifact.partial else "complete"
                    typer.echo(
                        printable(
                            f"{artifact.node_id}  {kind} {artifact.uid} "
                            f" {compact(artifact.meta, 160)}"
                        )
                    )

    run_async(main)


def workers(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List the workers, with their load and their last heartbeat.

    A worker without heartbeats was killed, has no store, or is blocked by a handler.
    """

    async def main() -> list[WorkerView]:
        async with connected(config, db, bus) as client:
            return await client.workers()

    found = run_async(main)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.id,
            ", ".join(one.roles),
            f"{one.running} of {one.slots}" + (f", {one.waiting} waiting" if one.waiting else ""),
            Text("silent", style="bold red") if one.silent else Text("live", style="green"),
            time_text(one.last_heartbeat),
            one.version,
            f"process {one.pid} on {one.host}",
        )
        for one in found
    ]
    columns = ("worker", "roles", "running", "state", "last heartbeat", "version", "process")
    print_page(console(), columns, rows, empty="no workers", after=None)
