"""Views of schedules for users."""

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flowkit._schedules._due_times import after_pauses
from flowkit._schedules._schedule import Schedule, task_id_of
from flowkit._schedules._state import Entry, Rules, ScheduleState, SkipReason
from flowkit.protocols import utc


class ScheduleEvent(BaseModel):
    """Entry in the history of a schedule: a task that was made or refused, or nominal times that
    were skipped for the same reason, one after the other.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["started", "skipped", "refused"]
    at: datetime
    """Nominal time, or the first of the skipped ones."""
    until: datetime
    """The last of the skipped nominal times; else the same as ``at``."""
    count: int = 1
    """Number of skipped nominal times."""
    reason: SkipReason | None = None
    """Reason why nominal times were skipped: ``overlap``, ``queue_full`` (1,000 already wait),
    ``catch_up``, ``catch_up_window``, ``paused`` or ``id_taken`` (the task id belongs to another
    task).
    """
    error: str | None = None
    """Reason why the task was refused."""
    task_id: str | None = None
    """Task that was made."""


class ScheduleView(BaseModel):
    """A schedule at one moment."""

    model_config = ConfigDict(frozen=True)

    id: str
    schedule: Schedule
    """The schedule as it was put."""
    paused: bool
    created_at: datetime
    next_at: datetime | None = None
    """Next nominal time, from which the task is made after the jitter. None if there is none, or
    while the schedule is paused.
    """
    open_tasks: list[str] = []
    """Tasks that have not ended. The schedule does not follow tasks that may overlap."""
    waiting: list[datetime] = []
    """Nominal times that wait until other tasks have ended."""
    backfills: int = 0
    """Backfills that have not ended."""
    history: list[ScheduleEvent] = []
    """The last 50 tasks that were made, without those of backfills, and the last 100 entries about
    others, the newest last.
    """


def schedule_view(
    schedule: Schedule, state: ScheduleState, running: Collection[str]
) -> ScheduleView:
    """Return the view of a schedule. ``running`` are its tasks that are stored and have not
    ended.
    """
    starting = {task_id_of(schedule.id, one) for one in state.starting}
    is_paused = state.paused_at is not None
    coming = None
    if not is_paused:
        rules = Rules.of(schedule)
        coming = after_pauses(rules, state, rules.after(state, state.handled))
    return ScheduleView(
        id=schedule.id,
        schedule=schedule,
        paused=is_paused,
        created_at=utc(state.created_at),
        next_at=None if coming is None else utc(coming),
        open_tasks=[one for one in state.open if one in running or one in starting],
        waiting=[utc(one) for one in state.waiting],
        backfills=len(state.backfills),
        history=[
            _event(schedule.id, entry)
            for entry in state.history
            if not (entry.is_start and entry.first in state.starting)
        ],
    )


def _event(schedule_id: str, entry: Entry) -> ScheduleEvent:
    kind: Literal["started", "skipped", "refused"] = "started"
    if entry.skipped is not None:
        kind = "skipped"
    elif entry.error is not None:
        kind = "refused"
    return ScheduleEvent(
        kind=kind,
        at=utc(entry.first),
        until=utc(entry.last),
        count=entry.count,
        reason=entry.skipped,
        error=entry.error,
        task_id=task_id_of(schedule_id, entry.first) if kind == "started" else None,
    )
