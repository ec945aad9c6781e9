"""Terminal output: consoles, JSON, tables, and the summary of a task."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

import typer
from pydantic_core import to_json
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from flowkit._text.redaction import printable, printable_json
from flowkit.graph._expanded_plan import split_child_id
from flowkit.task import ClaimKind, NodeStatus, NodeView, TaskView, WaitKind

PIPE_WIDTH = 200
STYLES = {
    "queued": "dim",
    "running": "cyan",
    "deferred": "yellow",
    "paused": "yellow",
    "cancelling": "magenta",
    "finished": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "skipped": "dim",
}


class _PlainConsole(Console):
    """Console that escapes control characters in names and errors written by users."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, lines=True), segment.style)


def console(*, stderr: bool = False) -> Console:
    """Return a console on the current stdout or stderr. User text is never parsed as markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return _PlainConsole(file=stream, markup=False, highlight=False, emoji=False, width=width)


def print_json(value: Any) -> None:
    """Print an indented JSON document."""
    typer.echo(printable_json(to_json(value, indent=2).decode()))


def print_json_line(value: Any) -> None:
    """Print a JSON object on one line."""
    typer.echo(printable_json(to_json(value).decode()))
    sys.stdout.flush()


def print_facts(out: Console, facts: Mapping[str, str | None]) -> None:
    """Print a line for each fact that has a value."""
    for name, value in facts.items():
        if value:
            out.print(
                Text(f"{name}: ", style="bold").append(value, style="not bold"), soft_wrap=True
            )


def status_text(status: str) -> Text:
    return Text(status, style=STYLES.get(status, ""))


def seconds_text(seconds: float | None) -> str:
    """Format a duration: ``0.25 s``, ``12.3 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def duration(view: TaskView | NodeView) -> float | None:
    """Return the time from start to end, or None if it has not ended."""
    if view.started_at is None or view.finished_at is None:
        return None
    return (view.finished_at - view.started_at).total_seconds()


def time_text(at: datetime | None) -> str:
    """Format a time in UTC, so that options for times read it as it is."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def labels_text(labels: Mapping[str, str]) -> str:
    """Format labels: ``team=a, region=eu``."""
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def compact(value: Any, limit: int = 60) -> str:
    """Shorten a value; progress of the form ``{"done": 3, "total": 8}`` becomes ``3/8``."""
    if value is None:
        return ""
    if isinstance(value, dict) and value.keys() == {"done", "total"}:
        return f"{value['done']}/{value['total']}"
    if isinstance(value, float) and 0 <= value <= 1:
        return f"{value:.0%}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def table(title: str | None, columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table. Columns that contain only numbers are right-aligned."""
    rows = [list(row) for row in rows]
    made = Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
    )
    for number, column in enumerate(columns):
        cells = [row[number] for row in rows if number < len(row)]
        numeric = bool(cells) and all(
            isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells
        )
        made.add_column(Text(str(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def _cell(cell: Any) -> Text:
    if isinstance(cell, Text):
        return cell
    if cell is None:
        return Text("")
    if isinstance(cell, bool):
        return Text("yes" if cell else "no")
    if isinstance(cell, int):
        return Text(f"{cell:,}")
    if isinstance(cell, float):
        return Text(f"{cell:,.2f}")
    return Text(
        cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)
    )


def print_page(
    out: Console,
    columns: Iterable[str],
    rows: Sequence[Sequence[Any]],
    *,
    empty: str,
    after: str | None,
) -> None:
    """Print a page as a table, or the text ``empty``. ``after`` is the option for the next page.

    The first column has the ids of the items. They stay on one line, so that they can be copied,
    unless they take more than half of the width.
    """
    made = table(None, columns, rows)
    longest = max((cell_len(str(row[0])) for row in rows), default=0)
    made.columns[0].no_wrap = longest <= out.width // 2
    out.print(made if rows else empty)
    print_next(out, after)


def print_next(out: Console, after: str | None) -> None:
    """Print how to get the next page, if there is one."""
    if after:
        out.print(f"for more, use --after {quote(after)}", soft_wrap=True)


# ---------------------------------------------------------------- tasks


def print_result(out: Console, result: Any) -> None:
    """Print the result of a task: an object by its keys, which are node ids without an ``output``.

    A value that is an object with ``"tables": [{"title": str, "columns": [...], "rows":
    [[...], ...]}, ...]`` is printed as tables after the other results.
    """
    tables: list[Any] = []
    by_key = isinstance(result, dict) and not _are_tables(result.get("tables"))
    for key, value in result.items() if by_key else [("result", result)]:
        rest = value
        if isinstance(value, dict) and _are_tables(value.get("tables")):
            tables += value["tables"]
            rest = {name: part for name, part in value.items() if name != "tables"}
        if rest != {} or rest is value:
            out.print(
                Text(f"{key}: ", style="bold").append(_pretty(rest), style="not bold"),
                soft_wrap=True,
            )
    for item in tables:
        out.print(table(item.get("title"), item["columns"], item["rows"]))


def _pretty(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else json.dumps(value, ensure_ascii=False, indent=2)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("columns"), list)
        and isinstance(item.get("rows"), list)
        and all(isinstance(row, list) and len(row) <= len(item["columns"]) for row in item["rows"])
        for item in value
    )


def skipped_text(batches: int) -> str:
    """Format the number of skipped batches: ``2 failed batches skipped``."""
    return f"{batches} failed batch{'' if batches == 1 else 'es'} skipped"


def waiting_text(
    waiting: WaitKind | ClaimKind, until: datetime | None, key: str | None = None
) -> str:
    """Format what a node or task waits for: ``sleeps until 2026-12-24 18:00:00``, or ``waits for
    its key 'invoices'``.
    """
    named = "" if key is None else f" {key!r}"
    return _WAITING[waiting] + named + (f" until {time_text(until)}" if until is not None else "")


_WAITING: Mapping[WaitKind | ClaimKind, str] = {
    "timer": "sleeps",
    "signal": "waits for a signal",
    "approval": "waits for a decision",
    "key": "waits for its key",
    "rate": "waits for its rate",
    "cache": "waits for the result of another node",
}
CACHED = "took a stored result"


def details(node: NodeView) -> str:
    """Return the error or reason of a node, what it waits for, whether it took a stored result,
    and the number of batches it skipped.
    """
    if node.rounds and node.waiting is not None:
        return f"waits until {time_text(node.waiting_until)} before round {max(node.rounds) + 2}"
    if node.waiting is not None:
        return waiting_text(node.waiting, node.waiting_until)
    if node.child_task_id is not None and not node.status.terminal and not node.error:
        number = f" (round {max(node.rounds) + 1})" if node.rounds else ""
        return f"runs as task {node.child_task_id}{number}"
    if node.status in ("cancelled", "cancelling") and node.reason_code and node.error:
        wrong: str | None = f"{node.reason_code}: {node.error}"
    else:
        wrong = node.error or node.reason_code
    if node.optional and node.status == "failed":
        wrong = f"optional: {wrong}"
    skipped = skipped_text(node.skipped_batches) if node.skipped_batches else None
    if node.resolved_by is not None and node.status == "finished":
        wrong = f"resolved by {node.resolved_by}"
    cached = CACHED if node.cached else None
    return "; ".join(filter(None, (wrong, cached, children_text(node.children), skipped)))


def children_text(children: Mapping[NodeStatus, int] | Mapping[str, int]) -> str:
    """Format the number of the children of a map in each status: ``12 finished, 3 queued``."""
    return ", ".join(f"{number} {status}" for status, number in children.items() if number)


def hidden_children(view: TaskView) -> dict[str, int]:
    """Return how many children each map has that the view of its task leaves out."""
    shown = Counter(split_child_id(node_id)[0] for node_id in view.nodes)
    return {
        node.node_id: hidden
        for node in view.nodes.values()
        if (hidden := sum(node.children.values()) - shown[node.node_id] + 1) > 0 and node.children
    }


def _since_retry(view: TaskView) -> str:
    """Return what the duration of a task leaves out: the nodes that a retry kept."""
    began = view.started_at
    kept = sum(
        began is not None and node.started_at is not None and node.started_at < began
        for node in view.nodes.values()
    )
    return f" since the retry, which kept {kept} of them" if kept else ""


def print_end(out: Console, view: TaskView, *, options: str | None = "") -> None:
    """Print the status, the errors and the result of an ended task.

    The output mentions how to list the task's dead letters, with these ``options`` of the command
    line. If they are None, its store is gone.
    """
    number = len(view.nodes) + sum(hidden_children(view).values())
    nodes = f"{number} node{'' if number == 1 else 's'}"
    line = Text("task ").append(view.id).append(" ").append_text(status_text(view.status))
    took = seconds_text(duration(view))
    since = _since_retry(view) if took else ""
    out.print(line.append(f": {nodes}{f' in {took}' if took else ''}{since}"), soft_wrap=True)
    if view.error:
        out.print(Text(view.error, style="red"), soft_wrap=True)
    for node in view.nodes.values():
        if (
            node.status == "failed"
            and node.error
            and (view.error is None or node.error not in view.error)
        ):
            out.print(
                Text(
                    f"{'optional ' if node.optional else ''}node {node.node_id!r}:"
                    f" {node.reason_code}: {node.error}",
                    style="yellow" if node.optional else "red",
                ),
                soft_wrap=True,
            )
        if node.skipped_batches:
            letters = f"flowkit dlq ls --task {quote(view.id)}"
            hint = "" if options is None else f"; see {letters}{options}"
            out.print(
                Text(
                    f"node {node.node_id!r}: {skipped_text(node.skipped_batches)}{hint}",
                    style="yellow",
                ),
                soft_wrap=True,
            )
    if view.result is not None or view.status == "finished":
        print_result(out, view.result)
