"""Timeline of a task: one bar for each run of a node."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from flowkit.cli._output import STYLES, seconds_text
from flowkit.cli._progress import waits
from flowkit.task import NodeStatus, TaskEvent

WIDEST, NARROWEST, BESIDE = 60, 20, 52
FULL, FIRST_BATCH, IN_COORDINATOR = "█", "◆", "coordinator"


@dataclass(slots=True)
class Span:
    """Run of a node by a worker or the coordinator, or its wait, from start to end."""

    node_id: str
    worker_id: str
    began_at: datetime
    ended_at: datetime | None = None
    ending: str = "running"
    first_batch_at: datetime | None = None


def spans(events: Iterable[TaskEvent]) -> list[Span]:
    """Return the runs of a task, in the order in which they started."""
    found: list[Span] = []
    running: dict[str, Span] = {}
    for event in events:
        node_id, status = event.node_id, event.status
        if node_id is None:
            continue
        data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
        span = running.get(node_id)
        if event.kind == "batch" and span is not None:
            span.first_batch_at = event.at
        if event.kind != "status":
            continue
        if status == NodeStatus.RUNNING:
            running[node_id] = Span(node_id, data.get("worker_id") or IN_COORDINATOR, event.at)
            found.append(running[node_id])
        elif waits(event):
            if span is not None and span.ending != "waiting":  # a loop between two rounds
                span.ended_at, span.ending, span = event.at, "to wait", None
            if span is None:
                span = running[node_id] = Span(node_id, IN_COORDINATOR, event.at, ending="waiting")
                found.append(span)
            span.worker_id = data.get("waiting", IN_COORDINATOR)
        elif span is not None and status != NodeStatus.CANCELLING:
            span.ended_at = event.at
            span.ending = (
                "handed back"
                if "released_by" in data
                else "to be retried"
                if status == NodeStatus.DEFERRED
                else str(status)
            )
            del running[node_id]
    return found


def print_timeline(out: Console, events: Iterable[TaskEvent]) -> None:
    """Print the timeline of a task from its events. Nothing is printed if no node ran."""
    if found := spans(events):
        out.print(draw(found, room=out.width))


def draw(found: Sequence[Span], *, room: int) -> Group:
    """Draw the runs as bars over a time axis, for a terminal of ``room`` columns."""
    width = max(min(room - BESIDE, WIDEST), NARROWEST)
    begin = min(span.began_at for span in found)
    end = max(span.ended_at or span.began_at for span in found)
    total = max((end - begin).total_seconds(), 0.001)

    def column(at: datetime) -> int:
        return min(int((at - begin).total_seconds() / total * width), width - 1)

    made = Table(box=None, header_style="bold", padding=(0, 1))
    made.add_column("node")
    made.add_column("worker")
    made.add_column(f"0 s{seconds_text(total):>{width - 3}}", no_wrap=True, min_width=width)
    made.add_column("time", justify="right")
    made.add_column("end")
    for span in found:
        left, right = column(span.began_at), column(span.ended_at or end)
        cells = [" "] * width
        cells[left : right + 1] = FULL * (right + 1 - left)
        bar = Text("".join(cells), style=STYLES.get(span.ending, "yellow"))
        if span.first_batch_at is not None:
            place = column(span.first_batch_at)
            bar = Text.assemble(bar[:place], (FIRST_BATCH, "bold white"), bar[place + 1 :])
        took = seconds_text(((span.ended_at or end) - span.began_at).total_seconds())
        made.add_row(Text(span.node_id), Text(span.worker_id), bar, took, Text(span.ending))
    legend = (
        [Text(f"{FIRST_BATCH} first batch stored", style="dim")]
        if any(span.first_batch_at for span in found)
        else []
    )
    return Group(made, *legend)
