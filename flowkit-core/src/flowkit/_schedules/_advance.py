"""The state machine of schedules.

A coordinator stores the state that :func:`advance_schedule` returns, then makes the tasks, then
stores the state that :func:`started` returns. The ids of the tasks follow from the nominal times,
so that another coordinator can make the same tasks after a crash.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from flowkit._schedules._schedule import task_id_of
from flowkit._schedules._state import (
    MOST_OPEN,
    Backfill,
    Entry,
    Rules,
    ScheduleState,
    SkipReason,
    added,
)

MISSED_SEC = 30.0
"""A nominal time is missed if it is not handled this long after its task is due."""
MOST_AT_ONCE = 500
"""Nominal times that are decided in one step."""
MOST_WAITING = 1_000
"""Nominal times that wait for the end of other tasks."""
CLAIM_SEC = 10.0
"""Time that a coordinator has to make tasks, before another one makes them."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a schedule: its next state, and what follows once that is stored."""

    state: ScheduleState
    start: tuple[float, ...] = ()
    """Nominal times whose tasks are to be made."""
    cancel: tuple[str, ...] = ()
    """Tasks to cancel."""


@dataclass(slots=True)
class _StepDraft:
    """A state that is being changed."""

    rules: Rules
    state: ScheduleState
    now: float
    open: list[str]
    waiting: list[float]
    start: list[float]
    cancels: bool = False

    # ------------------------------------------------------------ nominal times

    def decide_due(self) -> None:
        """Decide about nominal times that are due, up to a limit."""
        nominal = self._next(self.state.handled)
        for _ in range(MOST_AT_ONCE):
            if nominal is None or not self._is_due(nominal):
                break
            following = self._next(nominal)
            reason = self._skipped(nominal, following)
            if reason is None:
                self._place(nominal)
            else:
                self._skip(nominal, reason)
            self.state = replace(self.state, handled=nominal)
            nominal = following
        if self.state.pauses:
            left = [one for one in self.state.pauses if nominal is not None and nominal <= one[1]]
            self.state = replace(self.state, pauses=tuple(left))

    def _next(self, moment: float) -> float | None:
        return self.rules.times.after(moment)

    def _is_due(self, nominal: float) -> bool:
        return due_at(self.rules, self.state, nominal) <= self.now

    def _skipped(self, nominal: float, following: float | None) -> SkipReason | None:
        """Return why a nominal time gets no task at all, or None."""
        if in_pause(self.state, nominal):
            return "paused"
        late = self.now - self.rules.start_of(nominal)
        if late <= MISSED_SEC:
            return None
        if self.rules.window_sec is not None and late > self.rules.window_sec:
            return "catch_up_window"
        if self.rules.catch_up == "none":
            return "catch_up"
        if self.rules.catch_up == "latest" and following is not None and self._is_due(following):
            return "catch_up"
        return None

    def _place(self, nominal: float) -> None:
        """Make a task of a nominal time, or let it wait, or skip it."""
        overlap = self.rules.overlap
        if overlap == "allow":
            self._make(nominal)
        elif not self.open and not self.waiting:
            self._start(nominal)
        elif overlap == "skip":
            self._skip(nominal, "overlap")
        elif overlap == "cancel_running":
            for waiting in self.waiting:
                self._skip(waiting, "overlap")
            self.waiting = [nominal]
        elif len(self.waiting) >= MOST_WAITING:
            self._skip(nominal, "queue_full")
        else:
            self.waiting.append(nominal)

    def _make(self, nominal: float) -> None:
        self.start.append(nominal)
        self.state = self.state.with_entry(Entry(nominal, nominal))

    def _start(self, nominal: float) -> None:
        self._make(nominal)
        self.open.append(task_id_of(self.rules.schedule_id, nominal))

    def _skip(self, nominal: float, reason: SkipReason) -> None:
        self.state = self.state.with_entry(Entry(nominal, nominal, skipped=reason))

    # ------------------------------------------------------------ waiting times and backfills

    def start_waiting(self) -> None:
        """Make the task of the first nominal time that waits, if all others have ended."""
        if self.waiting and not self.open and self.state.paused_at is None:
            self._start(self.waiting.pop(0))

    def fill(self, backfill: Backfill, running: Collection[str]) -> Backfill | None:
        """Begin the next tasks of a backfill. Return None when it has ended."""
        open_ = [one for one in backfill.open if one in self.start or self._id(one) in running]
        handled, nominal = backfill.handled, self._next(backfill.handled)
        while nominal is not None and nominal <= backfill.end and len(open_) < backfill.limit:
            open_.append(nominal)
            if nominal not in self.start:
                self.start.append(nominal)
            handled, nominal = nominal, self._next(nominal)
        if not open_ and (nominal is None or nominal > backfill.end):
            return None
        return replace(backfill, handled=handled, open=tuple(open_))

    def _id(self, nominal: float) -> str:
        return task_id_of(self.rules.schedule_id, nominal)


def advance_schedule(
    rules: Rules, state: ScheduleState, now: float, running: Collection[str]
) -> Step:
    """Decide about all that is due. ``running`` are those open tasks of the schedule that have not
    ended.
    """
    starting = {task_id_of(rules.schedule_id, one) for one in state.starting}
    draft = _StepDraft(
        rules,
        state,
        now,
        open=[one for one in state.open if one in running or one in starting],
        waiting=list(state.waiting),
        start=list(state.starting),
    )
    draft.start_waiting()
    draft.decide_due()
    draft.start_waiting()
    backfills = [draft.fill(one, running) for one in state.backfills]
    draft.state = replace(
        draft.state,
        starting=tuple(draft.start),
        waiting=tuple(draft.waiting),
        open=tuple(draft.open[-MOST_OPEN:]),
        backfills=tuple(one for one in backfills if one is not None),
    )
    cancels = rules.overlap == "cancel_running" and draft.waiting
    cancel = [one for one in draft.open if one not in starting] if cancels else []
    return Step(draft.state, tuple(draft.start), tuple(cancel))


def started(
    rules: Rules, state: ScheduleState, outcomes: Mapping[float, Entry | None]
) -> ScheduleState:
    """Return the state after tasks were made, or not made with an entry for the history."""
    refused = {task_id_of(rules.schedule_id, one) for one, entry in outcomes.items() if entry}
    for nominal, entry in outcomes.items():
        if nominal in state.starting and entry is not None:
            begun = Entry(nominal, nominal)
            others = tuple(one for one in state.history if one != begun)
            state = replace(state, history=added(others, entry))
    return replace(
        state,
        starting=tuple(one for one in state.starting if one not in outcomes),
        open=tuple(one for one in state.open if one not in refused),
    )


# ---------------------------------------------------------------- times


def in_pause(state: ScheduleState, nominal: float) -> bool:
    """Return whether a nominal time is in a pause that has ended."""
    return any(start < nominal <= end for start, end in state.pauses)


def due_at(rules: Rules, state: ScheduleState, nominal: float) -> float:
    """Return when a nominal time is to be decided; infinity while a pause holds it."""
    if state.paused_at is not None and nominal > state.paused_at:
        return float("inf")
    return nominal if in_pause(state, nominal) else rules.start_of(nominal)


def next_nominal(rules: Rules, state: ScheduleState) -> float | None:
    """Return the next nominal time that is not decided, apart from pauses that have ended."""
    nominal = rules.times.after(state.handled)
    while nominal is not None and in_pause(state, nominal):
        end = max(end for start, end in state.pauses if start < nominal <= end)
        nominal = rules.times.after(end)
    return nominal


def wake_at(rules: Rules, state: ScheduleState, now: float, check_sec: float) -> float | None:
    """Return when the schedule is to be advanced next; None for never. The tasks for whose end it
    waits are checked after ``check_sec``.
    """
    if state.starting:
        return now + CLAIM_SEC
    times = []
    nominal = rules.times.after(state.handled)
    if nominal is not None and (due := due_at(rules, state, nominal)) < float("inf"):
        times.append(due)
    if (state.waiting and state.paused_at is None) or state.backfills:
        times.append(now + check_sec)
    return min(times, default=None)
