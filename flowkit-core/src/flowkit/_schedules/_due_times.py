"""Times at which nominal times are to be decided, with regard to pauses and earlier timings."""

from dataclasses import replace

from flowkit._schedules._state import Rules, ScheduleState

CLAIM_SEC = 10.0
"""Time that a coordinator has to make tasks, before another one makes them."""


def in_pause(state: ScheduleState, nominal: float) -> bool:
    """Return whether a nominal time is in a pause that has ended."""
    return any(start < nominal <= end for start, end in state.pauses)


def due_at(rules: Rules, state: ScheduleState, nominal: float) -> float:
    """Return when a nominal time is to be decided; infinity while a pause holds it."""
    if state.paused_at is not None and nominal > state.paused_at:
        return float("inf")
    return nominal if in_pause(state, nominal) else rules.start_of(state, nominal)


def without_decided(state: ScheduleState, nominal: float | None) -> ScheduleState:
    """Return the state without the pauses and the earlier timings that are over. ``nominal`` is the
    next nominal time that is not decided.
    """
    if not state.pauses and not state.earlier:
        return state
    at = float("inf") if nominal is None else nominal
    over = [one.until for one in state.earlier if one.until < at]
    return replace(
        state,
        handled=max(state.handled, *over) if over else state.handled,
        pauses=tuple(one for one in state.pauses if at <= one[1]),
        earlier=tuple(one for one in state.earlier if at <= one.until),
    )


def after_pauses(rules: Rules, state: ScheduleState, nominal: float | None) -> float | None:
    """Return a nominal time, or the first one after the pauses that it is in."""
    while nominal is not None and in_pause(state, nominal):
        end = max(end for start, end in state.pauses if start < nominal <= end)
        nominal = rules.after(state, end)
    return nominal


def wake_at(rules: Rules, state: ScheduleState, now: float, check_sec: float) -> float | None:
    """Return when the schedule is to be advanced next; None for never. The tasks for whose end it
    waits are checked after ``check_sec``.
    """
    if state.starting:
        return now + CLAIM_SEC
    times = []
    nominal = rules.after(state, state.handled)
    if nominal is not None and (due := due_at(rules, state, nominal)) < float("inf"):
        times.append(due)
    if (state.waiting and state.paused_at is None) or state.backfills:
        times.append(now + check_sec)
    return min(times, default=None)
