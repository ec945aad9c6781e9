"""The state machine of schedules.

A coordinator stores the state that :func:`advance_schedule` returns, then makes the tasks, then
stores the state that :func:`started` returns. The ids of the tasks follow from the nominal times,
so that another coordinator can make the same tasks after a crash.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flowkit._schedules._due_times import after_pauses, due_at, in_pause, without_decided
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
    catches_up: bool
    """A nominal time was missed, and the latest one that is due is not decided yet."""

    # ------------------------------------------------------------ nominal times

    def decide_due(self) -> None:
        """Decide about nominal times that are due, up to a limit."""
        nominal = self._following(self.state.handled)
        for _ in range(MOST_AT_ONCE):
            if nominal is None or not self._is_due(nominal):
                break
            following = self._following(nominal)
            reason = self._skipped(nominal, following)
            if reason is None:
                self._place(nominal)
            else:
                self._skip(nominal, reason)
            self.state = replace(self.state, handled=nominal)
            nominal = following
        self.state = without_decided(self.state, nominal)

    def _following(self, moment: float) -> float | None:
        return self.rules.after(self.state, moment)

    def _is_due(self, nominal: float) -> bool:
        return due_at(self.rules, self.state, nominal) <= self.now

    def _skipped(self, nominal: float, following: float | None) -> SkipReason | None:
        """Return why a nominal time gets no task at all, or None. After one that was missed,
        ``latest`` also skips those that are due and were not missed themselves, but for the last.
        """
        if in_pause(self.state, nominal):
            return "paused"
        late = self.now - self.rules.start_of(self.state, nominal)
        is_missed = late > MISSED_SEC
        self.catches_up = self.catches_up or is_missed
        if is_missed and self.rules.window_sec is not None and late > self.rules.window_sec:
            return "catch_up_window"
        if is_missed and self.rules.catch_up == "none":
            return "catch_up"
        if self.catches_up and self.rules.catch_up == "latest":
            latest = after_pauses(self.rules, self.state, following)
            if latest is not None and self._is_due(latest):
                return "catch_up"
        self.catches_up = False
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
        if self.state.paused_at is not None:
            return
        if self.rules.overlap == "allow":
            for nominal in self.waiting:
                self._make(nominal)
            self.waiting = []
            return
        if self.rules.overlap == "cancel_running":  # they may have waited by another rule
            for nominal in self.waiting[:-1]:
                self._skip(nominal, "overlap")
            self.waiting = self.waiting[-1:]
        if self.waiting and not self.open:
            self._start(self.waiting.pop(0))

    def fill(self, backfill: Backfill, running: Collection[str]) -> Backfill | None:
        """Begin the next tasks of a backfill. Return None when it has ended."""
        open_ = [one for one in backfill.open if one in self.start or self._id(one) in running]
        times = self.rules.times
        handled, nominal = backfill.handled, times.after(backfill.handled)
        while nominal is not None and nominal <= backfill.end and len(open_) < backfill.limit:
            open_.append(nominal)
            if nominal not in self.start:
                self.start.append(nominal)
            handled, nominal = nominal, times.after(nominal)
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
        catches_up=_catches_up(state),
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


def _catches_up(state: ScheduleState) -> bool:
    """Return whether the last step skipped missed times and left later ones to this step."""
    if not state.history:
        return False
    last = state.history[-1]
    return last.last == state.handled and last.skipped in ("catch_up", "catch_up_window")


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
        backfills=tuple(_not_ended(rules, state.backfills, outcomes)),
    )


def _not_ended(
    rules: Rules, backfills: Sequence[Backfill], outcomes: Mapping[float, Entry | None]
) -> Iterator[Backfill]:
    """Yield the backfills that wait for a task, or have one to make, after some were refused."""
    for one in backfills:
        waits = tuple(at for at in one.open if outcomes.get(at) is None)
        following = rules.times.after(one.handled)
        if waits or (following is not None and following <= one.end):
            yield one if waits == one.open else replace(one, open=waits)
