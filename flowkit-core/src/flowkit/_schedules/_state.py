"""The state of a schedule, as it is stored."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from flowkit._json.limits import Moment
from flowkit._schedules._schedule import Overlap, Schedule
from flowkit._schedules._timetable import Timetable, Timing, jitter_of, timetable_of

MOST_STARTED = 50
"""Entries of tasks in the history."""
MOST_NOT_STARTED = 100
"""Entries of skipped times and refused tasks in the history."""
MOST_OPEN = 1_000
"""Open tasks that a schedule remembers."""

MOST_TRIGGERS = 20
"""Requests for tasks that a schedule remembers."""

SkipReason = Literal["overlap", "queue_full", "catch_up", "catch_up_window", "paused", "id_taken"]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of the history: a task that was made or refused, or nominal times that were skipped."""

    first: Moment
    last: Moment
    count: Positive = 1
    skipped: SkipReason | None = None
    error: str | None = None
    """Reason why the task was refused."""

    @property
    def is_start(self) -> bool:
        """Whether it is about a task that is made."""
        return self.skipped is None and self.error is None


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that has not ended."""

    start: Moment
    end: Moment
    limit: Positive
    """Most tasks at once."""
    handled: Moment
    """Tasks of all nominal times up to this one have been begun."""
    open: tuple[Moment, ...] = ()
    """Nominal times whose tasks may not have ended."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Timing of a schedule before it was put again."""

    until: Moment
    """Time of the put. Nominal times up to this one are those of the earlier timing."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class Trigger:
    """Task that was made on request."""

    request: str
    """Name of the request, so that a repeated one makes no other task."""
    at: Moment


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """State of a schedule."""

    definition: str
    """Hash of the definition."""
    created_at: Moment
    handled: Moment
    """All nominal times up to this one are decided: they are skipped, or wait, or have a task."""
    paused_at: Moment | None = None
    pauses: tuple[tuple[Moment, Moment], ...] = ()
    """Pauses that ended, with nominal times that are not decided."""
    earlier: tuple[Earlier, ...] = ()
    """Earlier timings, with nominal times that are not decided. The oldest is the first."""
    starting: tuple[Moment, ...] = ()
    """Nominal times whose tasks are being made by a coordinator."""
    waiting: tuple[Moment, ...] = ()
    """Nominal times that wait until other tasks have ended."""
    open: tuple[str, ...] = ()
    """Tasks that may not have ended, unless tasks may overlap."""
    backfills: tuple[Backfill, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    """The last tasks that were made on request."""
    history: tuple[Entry, ...] = ()

    def with_entry(self, entry: Entry) -> "ScheduleState":
        """Return the state with another entry in its history."""
        return replace(self, history=added(self.history, entry))


def added(history: tuple[Entry, ...], entry: Entry) -> tuple[Entry, ...]:
    """Return a history with another entry. Skipped times in a row are one entry. The oldest entry
    of the same sort is dropped above the limit.
    """
    if history and entry.skipped is not None and history[-1].skipped == entry.skipped:
        last = history[-1]
        merged = Entry(last.first, entry.last, last.count + entry.count, entry.skipped)
        return (*history[:-1], merged)
    same = [one for one in history if one.is_start == entry.is_start]
    if len(same) >= (MOST_STARTED if entry.is_start else MOST_NOT_STARTED):
        history = tuple(one for one in history if one is not same[0])
    return (*history, entry)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of a schedule that decide about its nominal times."""

    schedule_id: str
    timing: Timing
    times: Timetable
    overlap: Overlap
    catch_up: str
    window_sec: float | None

    @classmethod
    def of(cls, schedule: Schedule) -> "Rules":
        """Return the rules of a schedule."""
        timing = Timing.of(schedule)
        return cls(
            schedule.id,
            timing,
            timetable_of(timing),
            schedule.overlap,
            schedule.catch_up,
            schedule.catch_up_window_sec,
        )

    def after(self, state: ScheduleState, moment: float) -> float | None:
        """Return the first nominal time after a moment, of an earlier timing or of this one."""
        for one in state.earlier:
            if moment < one.until:
                nominal = timetable_of(one.timing).after(moment)
                if nominal is not None and nominal <= one.until:
                    return nominal
                moment = one.until
        return self.times.after(moment)

    def start_of(self, state: ScheduleState, nominal: float) -> float:
        """Return when the task of a nominal time is to be made. A later timing with less jitter
        makes it earlier, but not before that timing was put.
        """
        start, since = float("inf"), float("-inf")
        timings = [(one.timing, one.until) for one in state.earlier]
        for timing, until in [*timings, (self.timing, float("inf"))]:
            if nominal <= until:
                jittered = nominal + jitter_of(self.schedule_id, nominal, timing.jitter_sec)
                start = min(start, max(jittered, since))
            since = until
        return start
