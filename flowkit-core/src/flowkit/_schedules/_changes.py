"""Changes of schedules on request."""

from dataclasses import replace

from flowkit._schedules._advance import MOST_AT_ONCE
from flowkit._schedules._schedule import Schedule, task_id_of
from flowkit._schedules._state import Backfill, Entry, Rules, ScheduleState
from flowkit._schedules._timetable import Timetable
from flowkit.errors import ScheduleRefused

MOST_BACKFILLED = 10_000
"""Nominal times of a backfill."""
MOST_BACKFILLS = 20
_MICRO = 1e-6


def new_state(definition: str, schedule: Schedule, now: float) -> ScheduleState:
    """Return the state of a new schedule. Its nominal times are those after ``now``."""
    return ScheduleState(
        definition, created_at=now, handled=now, paused_at=now if schedule.paused else None
    )


def redefined(
    state: ScheduleState, definition: str, old: Schedule, new: Schedule, now: float
) -> ScheduleState:
    """Return the state of a schedule that was put again. It keeps its past: if its times have
    changed, the new ones are those after ``now``, and earlier ones of the old are skipped.
    """
    if _timing(old) != _timing(new):
        times, handled = Rules.of(old).times, state.handled
        missed = _times(times, handled, now, MOST_AT_ONCE)
        if missed:
            entry = Entry(missed[0], missed[-1], len(missed), skipped="changed")
            state = state.with_entry(entry)
        state = replace(state, handled=max(handled, now), pauses=())
    if "paused" in new.model_fields_set:
        state = paused(state, now) if new.paused else resumed(state, now)
    return replace(state, definition=definition)


def _timing(schedule: Schedule) -> tuple[object, ...]:
    return tuple(
        getattr(schedule, name)
        for name in ("cron", "every_sec", "at", "timezone", "start_at", "end_at")
    )


def paused(state: ScheduleState, now: float) -> ScheduleState:
    """Return the state in a pause. Earlier nominal times are still handled."""
    return state if state.paused_at is not None else replace(state, paused_at=now)


def resumed(state: ScheduleState, now: float) -> ScheduleState:
    """Return the state after a pause, whose nominal times are skipped."""
    if state.paused_at is None:
        return state
    past = (*state.pauses, (state.paused_at, now)) if now > state.paused_at else state.pauses
    return replace(state, paused_at=None, pauses=past)


def triggered(rules: Rules, state: ScheduleState, now: float) -> tuple[ScheduleState, float]:
    """Return the state in which a task is made now, and the time that stands in its id. That is no
    nominal time, and no time of another such task.
    """
    at = round(now, 6)
    if state.triggered_at is not None and at <= state.triggered_at:
        at = round(state.triggered_at + _MICRO, 6)
    while rules.times.after(at - _MICRO) == at:
        at = round(at + _MICRO, 6)
    task_id = task_id_of(rules.schedule_id, at)
    open_ = state.open if rules.overlap == "allow" else (*state.open, task_id)
    starting = (*state.starting, at)
    state = state.with_entry(Entry(at, at))
    return replace(state, starting=starting, open=open_, triggered_at=at), at


def backfilled(
    rules: Rules, state: ScheduleState, start: float, end: float, limit: int, now: float
) -> tuple[ScheduleState, list[float]]:
    """Return the state with a backfill, and its nominal times: all of the timetable from ``start``
    to ``end``.

    Raises:
        ScheduleRefused: the span is not in the past, or there are too many times or backfills.
    """
    if end < start:
        raise ScheduleRefused("the end of the span is before its start")
    if end > now:
        raise ScheduleRefused("the end of the span is in the future")
    before = start - _MICRO
    found = _times(rules.times, before, end, MOST_BACKFILLED + 1)
    if len(found) > MOST_BACKFILLED:
        raise ScheduleRefused(
            f"the span has more than {MOST_BACKFILLED:,} nominal times; backfill parts of it"
        )
    same = (start, end, limit)
    if not found or any((one.start, one.end, one.limit) == same for one in state.backfills):
        return state, found
    if len(state.backfills) >= MOST_BACKFILLS:
        raise ScheduleRefused(
            f"{MOST_BACKFILLS} backfills of this schedule have not ended; wait for them"
        )
    new = Backfill(start, end, limit, handled=before)
    return replace(state, backfills=(*state.backfills, new)), found


def _times(times: Timetable, after: float, until: float, most: int) -> list[float]:
    """Return up to ``most`` nominal times after a moment, until another one."""
    found: list[float] = []
    nominal = times.after(after)
    while nominal is not None and nominal <= until and len(found) < most:
        found.append(nominal)
        nominal = times.after(nominal)
    return found
