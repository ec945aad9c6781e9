"""Explanations of nodes that wait: for what, since when, and which command ends the wait."""

from shlex import quote

from flowkit.protocols import utc
from flowkit.task import NodeRecord, Task

MOST_CHOICES = 10


def explain_wait(task: Task, index: int, record: NodeRecord, now: float) -> str:
    """Return the sentence about a control node that waits, without the node's name."""
    wait = record.wait
    if wait is None:
        return "waits for its arguments to be evaluated."
    until = "" if wait.until is None else f" {explain_until(record, now)}"
    if wait.kind == "timer":
        return f"sleeps{until}. {run_now_hint(task, index)}"
    since = f" since {_time(record.issued_at)}"
    if wait.kind == "signal":
        name = str(wait.arguments["signal"])
        command = f"`flowkit signal {quote(task.task_id)} {quote(name)}`"
        return f"waits for the signal {name!r}{since}{until}. {command} sends it."
    choices = ", ".join(map(repr, wait.arguments["choices"][:MOST_CHOICES]))
    command = f"`flowkit decide {_place(task, index)} CHOICE`"
    return f"waits for a decision{since}{until}. {command} makes it: {choices}."


def explain_until(record: NodeRecord, now: float) -> str:
    """Return when the wait of a node ends."""
    until = now if record.wait is None or record.wait.until is None else record.wait.until
    return f"until {_time(until)} ({max(until - now, 0):.1f} s)"


def explain_pause(task: Task) -> str:
    """Return why no further node of a paused task starts, and which command ends it."""
    return f"waits because the task is paused. `flowkit resume {quote(task.task_id)}` ends that."


def run_now_hint(task: Task, index: int) -> str:
    """Return the sentence about the command that ends a pause of a node."""
    return f"`flowkit run-now {_place(task, index)}` ends that at once."


def _place(task: Task, index: int) -> str:
    return f"{quote(task.task_id)} {quote(task.spec.plan.ids[index])}"


def _time(moment: float) -> str:
    return utc(moment).isoformat(timespec="seconds")
