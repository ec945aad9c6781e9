"""Explanations of nodes that wait: for what, since when, and which command ends the wait."""

from collections.abc import Iterator, Sequence
from itertools import islice
from shlex import quote

from flowkit.protocols import utc
from flowkit.task import Mark, NodeRecord, Task

MOST_CHOICES = 10
MOST_WAITS = 3
"""Things that a view of a task names."""
MOST_LOOKED_AT = 100
"""Waiting nodes of a task among which they are searched."""


def waits_of(task: Task) -> tuple[str, ...]:
    """Return what a task and its nodes wait for, at most three different ones."""
    found: dict[str, None] = {}
    if task.key is not None and task.key.state == "queued":
        found[f"key {task.key.key!r}"] = None
    for index in islice(_waiting(task), MOST_LOOKED_AT):
        record = task.records.get(index)
        if record is not None and (name := _awaited(task, index, record)) is not None:
            found[name] = None
            if len(found) == MOST_WAITS:
                break
    return tuple(found)


def _waiting(task: Task) -> Iterator[int]:
    for mark in (Mark.DEFERRED, Mark.ISSUED):
        index = task.marks.find(mark)
        while index >= 0:
            yield index
            index = task.marks.find(mark, index + 1)


def _awaited(task: Task, index: int, record: NodeRecord) -> str | None:
    """Return what a deferred or issued node waits for; None for its next attempt."""
    plan = task.spec.plan
    if task.marks[index] == Mark.ISSUED:
        return f"worker of role {plan.nodes[index].type!r}"
    if record.queued_for is not None:
        return asked_place(record)
    if record.wait is None:
        return None
    if record.wait.kind == "signal":
        return f"signal {record.wait.arguments['signal']!r}"
    if record.wait.kind == "approval":
        return f"decision about {plan.ids[index]!r}"
    return None if record.wait.until is None else f"the time {_time(record.wait.until)}"


def asked_place(record: NodeRecord) -> str:
    """Return the key, the rate or the result that a node asks for, or waits for."""
    kind = record.asks_for or "key"
    if kind == "cache":
        return "the result for its cache key"
    claim = record.claim(kind)
    return kind if claim is None else f"{kind} {claim.key!r}"


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
    decider = _assignees(wait.arguments.get("assignees") or ())
    return f"waits for a decision{decider}{since}{until}. {command} makes it: {choices}."


def _assignees(names: Sequence[str]) -> str:
    """Return who may decide, if not everyone may."""
    if not names:
        return ""
    more = f" or {len(names) - MOST_CHOICES} others" if len(names) > MOST_CHOICES else ""
    return f" of {', '.join(map(repr, names[:MOST_CHOICES]))}{more}"


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
