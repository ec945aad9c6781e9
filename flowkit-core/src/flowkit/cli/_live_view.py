"""Live view of a running task: a table on a terminal, lines elsewhere."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flowkit.cli._connection import closing
from flowkit.cli._output import children_text, compact, seconds_text, status_text
from flowkit.cli._progress import BatchCounter, NodeProgress, TaskProgress
from flowkit.client import TaskVerbs
from flowkit.task import TaskEvent, TaskView

REDRAW_SEC = 0.12
COUNT_EVERY = 4
OTHER_LINES = 8

Notice = Callable[[TaskEvent], None]


async def follow(
    client: TaskVerbs,
    task_id: str,
    out: Console,
    *,
    notice: Notice | None = None,
    quiet: bool = False,
) -> TaskView:
    """Show the progress of a task until it ends, and return its final state.

    ``notice`` is called with every event. With ``quiet``, nothing is printed.
    """
    view = await client.get_task(task_id)
    progress = TaskProgress.of(view.nodes)
    live = out.is_terminal and not quiet
    last: dict[str | None, Text] = {}
    """The last line of each node, and of the task."""
    async with (
        _drawn(client, task_id, progress, out, live=live),
        closing(client.watch(task_id)) as events,
    ):
        async for event in events:
            progress.apply(event)
            if notice is not None:
                notice(event)
            if not quiet and not live:
                line = event_line(event, progress)
                # A node that is ready and issued at once has two events that look the same.
                if last.get(event.node_id) != line:
                    out.print(line, soft_wrap=True)
                last[event.node_id] = line
    return await client.get_task(task_id)


@asynccontextmanager
async def _drawn(
    client: TaskVerbs, task_id: str, progress: TaskProgress, out: Console, *, live: bool
) -> AsyncIterator[None]:
    if not live:
        yield
        return
    counter = BatchCounter(client.store.artifacts, task_id)
    with Live(console=out, auto_refresh=False, transient=False) as display:

        async def redraw() -> None:
            turn = 0
            while True:
                if turn % COUNT_EVERY == 0:
                    await counter.update(progress)
                turn += 1
                display.update(
                    progress_table(progress, client.clock.now_dt(), height=out.height), refresh=True
                )
                await anyio.sleep(REDRAW_SEC)

        async with anyio.create_task_group() as group:
            group.start_soon(redraw)
            yield
            group.cancel_scope.cancel()
        await counter.update(progress)
        display.update(
            progress_table(progress, client.clock.now_dt(), height=out.height), refresh=True
        )


def progress_table(progress: TaskProgress, now: datetime, *, height: int) -> Group:
    """Return the table of the nodes that fit, with the number of nodes in each status."""
    shown = progress.most_interesting(max(height - OTHER_LINES, 5))
    made = Table(header_style="bold")
    for column in ("node", "status", "attempt", "batches", "progress", "time", "worker"):
        made.add_column(
            column, justify="right" if column in ("attempt", "batches", "time") else "left"
        )
    for node in shown:
        made.add_row(
            Text(node.node_id),
            status_text(node.status),
            str(node.attempt or ""),
            str(node.batches or ""),
            Text(node.note or children_text(node.children) or compact(node.progress)),
            seconds_text(node.seconds(now)),
            Text(node.worker_id or ""),
        )
    line = (
        Text("task ")
        .append_text(status_text(progress.status))
        .append(f" ({progress.note}): " if progress.note else ": ")
    )
    line.append(
        ", ".join(f"{number} {status}" for status, number in progress.counts().most_common())
    )
    hidden = len(progress.nodes) - len(shown)
    if hidden:
        line.append(f" ({hidden} not shown)", style="dim")
    return Group(made, line)


def event_line(event: TaskEvent, progress: TaskProgress) -> Text:
    """Return the line of one event. Times are relative to the task's first event."""
    since = (event.at - (progress.began_at or event.at)).total_seconds()
    line = Text(f"{since:9.3f} s  ")
    node = progress.node(event.node_id) if event.node_id is not None else None
    line.append(node.node_id if node else "task", style="" if node else "bold").append("  ")
    if event.kind == "status" and event.status is not None:
        line.append_text(status_text(event.status))
        if node is not None:
            return line.append(_beside(node))
        return line.append(f"  {progress.note}") if progress.note else line
    if event.kind == "signal":
        data = event.data if isinstance(event.data, dict) else {}
        return line.append(f"signal {compact(data.get('signal'))}")
    if event.kind == "children" and node is not None:
        return line.append(f"{node.size} children" if node.size > 1 else "1 child")
    if event.kind == "progress":
        return line.append(f"progress {compact(event.data)}")
    if event.kind == "resolution" and isinstance(event.data, dict):
        return line.append(f"resolved as {event.data['outcome']} by {event.data['by']}")
    return line.append("first batch stored" if event.kind == "batch" else event.kind)


def _beside(node: NodeProgress) -> str:
    if node.status == "running":
        return f"  attempt {node.attempt}{f' on {node.worker_id}' if node.worker_id else ''}"
    if node.ended_at is not None and node.started_at is not None:
        took = seconds_text((node.ended_at - node.started_at).total_seconds())
        return f"  {took}{f'  {node.note}' if node.note else ''}"
    return f"  {node.note}" if node.note else ""
