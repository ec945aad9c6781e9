"""Time limits of attempts, and reports that an outage delays."""

from collections.abc import Iterator
from dataclasses import dataclass

from flowkit._engine.due_times import due_nodes
from flowkit.task import Mark, NodeRecord, Task

LIMIT_CODES = frozenset(
    {"schedule_to_start_timeout", "start_to_close_timeout", "heartbeat_timeout"}
)
"""Reason codes of attempts that have exceeded a limit."""
LATE_REPORTS_SEC = 10.0
"""Time after an outage in which the reports arrive that were delayed by it. Workers pause at most
half of it between two tries.
"""


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The time at which an attempt exceeds a limit, with the reason code and the error."""

    at: float
    reason_code: str
    error: str


def time_limits(
    task: Task, index: int, mark: int, record: NodeRecord, heard_since: float
) -> Iterator[TimeLimit]:
    """Yield the time limits of an attempt that is issued or runs.

    Of an attempt that was last heard before ``heard_since``, a report may have been delayed, so it
    exceeds no limit until such reports have arrived. One that is overdue exceeds no other limit.
    """
    if record.overdue:
        return
    timeouts = task.spec.plan.nodes[index].timeouts
    earliest = heard_since + LATE_REPORTS_SEC

    def end(since: float, seconds: float) -> float:
        return max(since + seconds, earliest) if since < heard_since else since + seconds

    if mark == Mark.ISSUED:
        if (seconds := timeouts.schedule_to_start_sec) is not None:
            error = f"no worker started it within {seconds:g} s"
            yield TimeLimit(end(record.issued_at, seconds), "schedule_to_start_timeout", error)
        return
    if (seconds := timeouts.start_to_close_sec) is not None:
        error = f"it ran longer than {seconds:g} s"
        since = record.started_at or record.issued_at
        yield TimeLimit(end(since, seconds), "start_to_close_timeout", error)
    if (seconds := timeouts.heartbeat_sec) is not None and record.heard_at is not None:
        error = f"no heartbeat for {seconds:g} s"
        yield TimeLimit(end(record.heard_at, seconds), "heartbeat_timeout", error)


def is_late(task: Task, now: float, heard_since: float) -> bool:
    """Return whether an attempt exceeds a time limit."""
    return any(
        now >= limit.at
        for index in due_nodes(task, now)
        if task.marks[index] in (Mark.ISSUED, Mark.RUNNING)
        for limit in time_limits(task, index, task.marks[index], task.records[index], heard_since)
    )
