"""Changes of schedules on request."""

from dataclasses import replace

from flowkit._schedules._due_times import without_decided
from flowkit._schedules._schedule import LAST_NOMINAL, Schedule, task_id_of
from flowkit._schedules._state import (
    MOST_TRIGGERS,
    Backfill,
    Earlier,
    Entry,
    Rules,
    ScheduleState,
    Trigger,
)
from flowkit._schedules._timetable import Timetable, Timing
from flowkit.errors import ScheduleRefused

MOST_BACKFILLED = 10_000
"""Nominal times of a backfill."""
MOST_BACKFILLS = 20
MOST_EARLIER = 100
"""Earlier timings with nominal times that are not decided."""
_MICRO = 1e-6


def new_state(definition: str, schedule: Schedule, now: float) -> ScheduleState:
    """Return the state of a new schedule. Its nominal times are those after ``now``.

    Raises:
        ScheduleRefused: there are none.
    """
    _require_times(Rules.of(schedule), now)
    return ScheduleState(
        definition, created_at=now, handled=now, paused_at=now if schedule.paused else None
    )


def redefined(
    state: ScheduleState, definition: str, old: Schedule, new: Schedule, now: float
) -> ScheduleState:
    """Return the state of a schedule that was put again. It keeps its past: nominal times up to
    ``now`` are the old ones, also those that are not decided yet, and later ones are the new ones.

    Raises:
        ScheduleRefused: it has got other times, but none after ``now``; or its times have changed
            too often since they were decided.
    """
    state = _with_timing(state, Rules.of(old), Rules.of(new), now)
    if old.overlap == "allow" and new.overlap != "allow":
        state = replace(state, open=_last_tasks(state, new.id))
    if "paused" in new.model_fields_set:
        state = paused(state, now) if new.paused else resumed(state, now)
    return replace(state, definition=definition)


def _with_timing(state: ScheduleState, old: Rules, new: Rules, now: float) -> ScheduleState:
    if old.timing == new.timing:
        return state
    if replace(old.timing, jitter_sec=new.timing.jitter_sec) != new.timing:
        _require_times(new, now)
    if not state.earlier or now > state.earlier[-1].until:
        state = replace(state, earlier=(*state.earlier, Earlier(now, old.timing)))
    state = without_decided(state, new.after(state, state.handled))
    if len(state.earlier) > MOST_EARLIER:
        raise ScheduleRefused(
            f"the times of schedule {new.schedule_id!r} have changed {MOST_EARLIER} times while"
            " earlier ones were not handled; resume it, or start a coordinator, and try again"
        )
    return state


def _require_times(rules: Rules, now: float) -> None:
    if rules.times.after(now) is None:
        raise ScheduleRefused(
            f"schedule {rules.schedule_id!r} has no nominal time in the future; give"
            f" {_with_times(rules.timing)}"
        )


def _with_times(timing: Timing) -> str:
    """Return the change of a timing without nominal times that may give it some."""
    if timing.at is not None:
        return "a later at"
    if timing.end_at is not None and timing.end_at < LAST_NOMINAL:
        return "a later end_at"
    return "another cron" if timing.start_at is None else "an earlier start_at"


def _last_tasks(state: ScheduleState, schedule_id: str) -> tuple[str, ...]:
    """Return the tasks of a schedule that may not have ended, if it has not followed them."""
    made = (task_id_of(schedule_id, one.first) for one in state.history if one.is_start)
    return tuple(dict.fromkeys((*state.open, *made)))


def paused(state: ScheduleState, now: float) -> ScheduleState:
    """Return the state in a pause. Earlier nominal times are still handled."""
    return state if state.paused_at is not None else replace(state, paused_at=now)


def resumed(state: ScheduleState, now: float) -> ScheduleState:
    """Return the state after a pause, whose nominal times are skipped."""
    if state.paused_at is None:
        return state
    past = (*state.pauses, (state.paused_at, now)) if now > state.paused_at else state.pauses
    return replace(state, paused_at=None, pauses=past)


def triggered(
    rules: Rules, state: ScheduleState, request: str, now: float
) -> tuple[ScheduleState, float]:
    """Return the state in which a task is made now, and the time that stands in its id. That is no
    nominal time, and no time of another such task. A request that is repeated changes nothing.
    """
    for one in state.triggers:
        if one.request == request:
            return state, one.at
    at = round(now, 6)
    if state.triggers and at <= (last := state.triggers[-1].at):
        at = round(last + _MICRO, 6)
    while rules.after(state, at - _MICRO) == at:
        at = round(at + _MICRO, 6)
    task_id = task_id_of(rules.schedule_id, at)
    open_ = state.open if rules.overlap == "allow" else (*state.open, task_id)
    starting = (*state.starting, at)
    state = state.with_entry(Entry(at, at))
    triggers = (*state.triggers, Trigger(request, at))[-MOST_TRIGGERS:]
    return replace(state, starting=starting, open=open_, triggers=triggers), at


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
