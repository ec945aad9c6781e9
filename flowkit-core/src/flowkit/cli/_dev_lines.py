"""Lines about tasks on the terminal of ``flowkit dev``."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from flowkit._runtime.concurrency import Recent
from flowkit.cli._output import duration, seconds_text, status_text
from flowkit.hookspecs import hookimpl
from flowkit.task import NodeStatus, NodeView, TaskStatus, TaskView

HEADING = 10
MOST_ENDS = 10_000
REPORTED = ("task_failed", "workers_lost", "worker_suspect")
"""Actions of log records that these lines, and those about workers, report."""
PlaceOfFailure = Callable[[str, str, int], str | None]


class Lines:
    """Printer of lines that begin with a heading.

    As a plugin, it prints a line when a task starts, when it ends, and when an attempt of a node
    fails. An error that ends the task is printed with its end. No hook reports the pauses and ends
    that another process commits: :meth:`print_change` prints these.
    """

    def __init__(self, out: Console, place_of_failure: PlaceOfFailure) -> None:
        """``place_of_failure`` says where in the user's code an attempt of a node failed."""
        self._out = out
        self._place_of_failure = place_of_failure
        self._ended: list[TaskView] = []
        self._failed: list[tuple[TaskView, NodeView]] = []
        self._ends = Recent[str, None](MOST_ENDS)
        """Tasks whose end was printed, and that have not run again."""
        self._printed: dict[str, list[str]] = {}
        """Errors of failed nodes that were printed, by task, until the task ends."""

    def say(self, heading: str, text: str | Text) -> None:
        """Print a line."""
        lines = Text(f"\n{'':{HEADING}}").join(Text().append(text).split("\n"))
        self._out.print(Text(f"{heading:{HEADING}}").append_text(lines), soft_wrap=True)

    def print_change(self, task: TaskView) -> None:
        """Print the status of a task, unless its end was printed."""
        if not task.status.terminal:
            self.say("task", _named(task))
        elif task.id not in self._ends:
            self._print_end(task, Text())

    @hookimpl
    def flowkit_task_changed(self, before: TaskView | None, after: TaskView) -> None:
        if not after.status.terminal:
            self._ends.pop(after.id, None)
        if after.status == TaskStatus.RUNNING and (before is None or before.started_at is None):
            pipeline = f" (pipeline {after.pipeline})" if after.pipeline else ""
            self.say("task", _named(after).append(pipeline))
        elif after.status.terminal:
            self._print_soon()
            self._ended.append(after)

    @hookimpl
    def flowkit_node_changed(self, task: TaskView, after: NodeView) -> None:
        if after.error and after.status in (NodeStatus.FAILED, NodeStatus.DEFERRED):
            self._print_soon()
            self._failed.append((task, after))

    def _print_soon(self) -> None:
        """Print when all changes of the commit are known."""
        if not (self._ended or self._failed):
            asyncio.get_running_loop().call_soon(self._print)

    def _print(self) -> None:
        ended, failed = self._ended, self._failed
        self._ended, self._failed = [], []
        ends = {task.id: task.error or "" for task in ended}
        places: dict[str, Text] = {}
        for task, node in failed:
            place = self._place(task, node)
            if node.status == NodeStatus.FAILED and str(node.error) in ends.get(task.id, ""):
                places[task.id] = place
            else:
                self._print_failure(task, node, place)
        for task in ended:
            self._print_end(task, places.get(task.id, Text()))

    def _print_failure(self, task: TaskView, node: NodeView, place: Text) -> None:
        line = Text(f"{node.node_id} of {task.id} ").append_text(status_text("failed"))
        line.append(f": {node.reason_code}: {node.error}").append_text(place)
        if node.next_retry_at is not None:
            pause = (node.next_retry_at - datetime.now(UTC)).total_seconds()
            line.append(f"; attempt {node.attempt + 1} in {seconds_text(pause)}")
        else:
            self._printed.setdefault(task.id, []).append(str(node.error))
        self.say("node", line)

    def _print_end(self, task: TaskView, place: Text) -> None:
        took, error = seconds_text(duration(task)), task.error or ""
        line = _named(task).append(f" in {took}" if took else "")
        if error and not any(known in error for known in self._printed.pop(task.id, ())):
            line.append(f": {error}").append_text(place)
        self.say("task", line)
        self._ends[task.id] = None

    def _place(self, task: TaskView, node: NodeView) -> Text:
        place = self._place_of_failure(task.id, node.node_id, node.attempt)
        return Text(f" ({place})" if place else "")


def _named(task: TaskView) -> Text:
    return Text(f"{task.id} ").append_text(status_text(task.status))
