"""Timers: timeouts, retries, checks and the deadline of a task."""

import math

from flowkit._engine.child_tasks import FOLLOWED, child_woke, next_child_wake
from flowkit._engine.due_times import due_nodes, first_due
from flowkit._engine.effects import (
    AskWorker,
    CallFunction,
    CheckCommand,
    EvaluateCondition,
    SendCancel,
)
from flowkit._engine.events import Woke
from flowkit._engine.keys import let_overdue_end
from flowkit._engine.node_ends import (
    RESEND_CANCEL_SEC,
    end_cancelled,
    fail_attempt,
    fail_overdue,
    stop_everything,
)
from flowkit._engine.node_starts import FIRST_CHECK_SEC, LATE_SEC, late_at, next_check
from flowkit._engine.pending_effects import (
    ends_by_proof,
    map_effects,
    node_question,
    question,
    stop_effects,
    withdrawal_of,
)
from flowkit._engine.publications import ended_task_woke
from flowkit._engine.segment_rules import is_called_back
from flowkit._engine.settings import MAX_LEASE_DOUBLINGS, EngineSettings
from flowkit._engine.stop_reasons import DEADLINE_PASSED, stop_cause
from flowkit._engine.time_limits import time_limits
from flowkit._engine.transition import Transition
from flowkit._engine.waits import next_wait_wake, wait_woke
from flowkit.graph._expanded_plan import runs_child_task
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.task import ENDED, WHOLE_TASK, KeyClaim, Mark, NodeRecord, TaskStatus

LONGEST_PAUSE_SEC = 600.0
LONGEST_ASK_PAUSE_SEC = 300.0
LONGEST_STOP_PAUSE_SEC = 60.0
LONGEST_READ_PAUSE_SEC = 60.0
"""Longest time after which a map looks for artifacts of its parent without a report of new ones."""


def woke(draft: Transition, event: Woke, settings: EngineSettings) -> None:
    """Do everything that is due, and schedule the next wake-up.

    The time is proportional to the number of nodes that are due, if the event is about these only.
    """
    task, now = draft.task, draft.now
    if draft.status.terminal:
        ended_task_woke(draft)
        return
    examined = due_nodes(task, now) if event.due_only else task.records
    if draft.deadline_at is not None and now >= draft.deadline_at and draft.outcome is None:
        draft.outcome = TaskStatus.FAILED
        draft.error = DEADLINE_PASSED
        stop_everything(draft, "deadline_exceeded", settings)
    else:
        for index in sorted(examined):
            if task.marks[index] not in ENDED:
                _node_woke(draft, index, event, settings)
    if draft.key is not None and draft.key.is_asking:
        draft.effects.append(question(WHOLE_TASK, draft.key))
    for index in {*examined, *draft.records}:
        mark = draft.mark(index)
        draft.due[index] = (
            None if mark in ENDED else _next_wake(draft, index, mark, event, settings)
        )
    draft.due_again = examined is task.records
    draft.wake_at = first_due(None if draft.due_again else task.due, draft.due)
    if draft.outcome is None:
        draft.wake(draft.deadline_at)
    if draft.key is not None and draft.key.is_asking:
        draft.wake(now + _pause_of_question(draft.key, now, settings))


def _pause_of_question(claim: KeyClaim, now: float, settings: EngineSettings) -> float:
    """Return the time until a question for a place is repeated."""
    return min(max(now - claim.asked_at, settings.resend_sec), LONGEST_PAUSE_SEC)


def _node_woke(draft: Transition, index: int, event: Woke, settings: EngineSettings) -> None:
    mark = draft.mark(index)
    record = draft.record(index)
    now = draft.now
    if mark == Mark.CHECKING:
        draft.effects.append(EvaluateCondition(index))
    elif mark == Mark.ASKING:
        draft.effects.append(node_question(index, record))
    elif mark == Mark.DEFERRED and record.queued_for:
        return
    elif mark in FOLLOWED and runs_child_task(draft.task.spec.plan, index):
        child_woke(draft, index)
    elif mark == Mark.DEFERRED:
        if _waits(draft, index, record):
            wait_woke(draft, index, settings)
        elif now >= (record.next_retry_at or now):
            draft.move(index, Mark.READY)
            draft.queue(index)
    elif mark == Mark.MAPPING:
        draft.effects += map_effects(draft.task, index, record.attempt)
    elif mark == Mark.CANCELLING:
        if _stop_is_over(draft, index, event, settings):
            end_cancelled(draft, index, settings)
        else:
            code, cause = stop_cause(draft, index)
            _stop_again(draft, index, cause or code)
    elif mark in (Mark.ISSUED, Mark.RUNNING):
        exceeded = _exceeded(draft, index, mark, record, event)
        failure = exceeded or _loss(mark, record, event, settings)
        if exceeded is not None and draft.task.spec.holds_place(index, record):
            let_overdue_end(draft, index, *exceeded, settings)
        elif failure is not None:
            if mark == Mark.RUNNING:
                token = draft.task.spec.current_token(index, record)
                draft.effects.append(SendCancel(index, record.attempt, token, failure[0]))
            fail_attempt(draft, index, *failure, settings)
        elif record.overdue:
            if _stop_is_over(draft, index, event, settings):
                fail_overdue(draft, index, settings)
            else:
                _stop_again(draft, index, record.reason_code or "overdue")
        elif mark == Mark.ISSUED and (
            now >= (late_at(record) or math.inf) or is_called_back(draft, index)
        ):
            draft.effects.append(withdrawal_of(draft, index))
        elif now - record.issued_at >= settings.resend_sec or record.worker_id in event.restarted:
            _check_attempt(draft, index, mark, event, settings)


def _waits(draft: Transition, index: int, record: NodeRecord) -> bool:
    """Return whether a deferred node is a control node that waits, and not for its next attempt."""
    plan = draft.task.spec.plan
    return record.next_retry_at is None and (index in plan.controls or index in plan.nested)


def _check_attempt(
    draft: Transition, index: int, mark: int, event: Woke, settings: EngineSettings
) -> None:
    """Check an attempt without recent reports: its command or its worker may be lost."""
    record = draft.record(index)
    if mark == Mark.ISSUED:
        if not record.sent:
            draft.effects.append(CheckCommand(index, record.attempt))
            if settings.sends and not record.claimed:
                draft.edit(index).claimed = True
        elif draft.now - record.issued_at >= FIRST_CHECK_SEC:
            # Until then the coordinator that sent the command watches it.
            draft.effects.append(CheckCommand(index, record.attempt))
    elif draft.task.spec.plan.nodes[index].type == COORDINATOR_FUNCTION:
        draft.effects.append(CallFunction(index, record.attempt))
    elif record.worker_id in event.restarted or (
        draft.now - (record.heard_at or 0.0) >= settings.lease_ttl_sec
        and not _suspect(record, event, settings)
    ):
        token = draft.task.spec.current_token(index, record)
        draft.effects.append(AskWorker(index, record.attempt, token, record.worker_id or ""))


def _suspect(record: NodeRecord, event: Woke, settings: EngineSettings) -> bool:
    return event.silent.get(record.worker_id or "", 0.0) >= settings.worker_suspect_sec


def _stop_is_over(draft: Transition, index: int, event: Woke, settings: EngineSettings) -> bool:
    """Return whether an attempt that is being stopped counts as ended without a report."""
    record = draft.record(index)
    if ends_by_proof(draft.task.spec, index, record):
        return _loss(Mark.CANCELLING, record, event, settings) is not None
    return draft.now >= (record.cancel_by or draft.now)


def _stop_again(draft: Transition, index: int, reason: str) -> None:
    """Repeat the stop of an attempt. After its grace, ask its worker whether it has ended."""
    record = draft.record(index)
    draft.effects += stop_effects(draft.task.spec, index, record, reason)
    if record.worker_id is not None and draft.now >= (record.cancel_by or draft.now):
        token = draft.task.spec.current_token(index, record)
        draft.effects.append(AskWorker(index, record.attempt, token, record.worker_id))


def _exceeded(
    draft: Transition, index: int, mark: int, record: NodeRecord, event: Woke
) -> tuple[str, str] | None:
    """Return the reason code and the error of an attempt that has exceeded a limit, or None."""
    now = min(draft.now, event.heard_until)
    for limit in time_limits(draft.task, index, mark, record, event.heard_since):
        if now >= limit.at:
            return limit.reason_code, limit.error
    return None


def _loss(
    mark: int, record: NodeRecord, event: Woke, settings: EngineSettings
) -> tuple[str, str] | None:
    """Return the reason code and the error of an attempt whose worker is lost, or None."""
    if mark == Mark.ISSUED:
        return None
    silence = event.silent.get(record.worker_id or "")
    if silence is not None and silence >= patience_sec(record, settings):
        why = "has ended" if silence == math.inf else f"was silent for {silence:.0f} s"
        return "worker_lost", f"worker {record.worker_id!r} {why}"
    return None


def patience_sec(record: NodeRecord, settings: EngineSettings) -> float:
    """Return how long a worker may be without heartbeats before it loses this attempt.

    Leases double with each attempt, so that a slow cluster is not overloaded.
    """
    doublings = min(record.attempt - record.first_attempt, MAX_LEASE_DOUBLINGS)
    lease: float = settings.lease_ttl_sec * 2**doublings
    return max(lease, settings.worker_lost_sec)


def _next_wake(
    draft: Transition, index: int, mark: int, event: Woke, settings: EngineSettings
) -> float | None:
    record = draft.record(index)
    now = draft.now
    if mark in FOLLOWED and runs_child_task(draft.task.spec.plan, index):
        return next_child_wake(draft, index, settings)
    if mark == Mark.CHECKING:
        return now + min(max(now - record.issued_at, settings.resend_sec), LONGEST_PAUSE_SEC)
    if mark == Mark.ASKING:
        claim = record.claim(record.asks_for or "key")
        assert claim is not None
        return now + _pause_of_question(claim, now, settings)
    if mark == Mark.DEFERRED and record.queued_for:
        return None
    if mark == Mark.DEFERRED:
        if _waits(draft, index, record):
            return next_wait_wake(draft, index, settings)
        return record.next_retry_at
    if mark == Mark.MAPPING:
        if not map_effects(draft.task, index, record.attempt):
            return None
        pause = settings.resend_sec
        if index in draft.task.spec.plan.map_sources:
            # A report of new artifacts may be lost, so a map that has none for long looks for them.
            pause = max(pause, min(now - (record.heard_at or now), LONGEST_READ_PAUSE_SEC))
        return now + pause
    if mark == Mark.CANCELLING:
        return _next_stop(record, now)
    if mark not in (Mark.ISSUED, Mark.RUNNING):
        return None
    if record.overdue:
        return _next_stop(record, now)
    if mark == Mark.ISSUED:
        look_at = next_check(record, now, settings)
        if (late := late_at(record)) is not None:
            look_at = min(look_at, max(late, now + LATE_SEC))
    elif record.worker_id is not None:
        look_at = _next_ask(record, now, event, settings)
    else:
        look_at = now + settings.lease_ttl_sec
    limits = time_limits(draft.task, index, mark, record, event.heard_since)
    return min([look_at, *(limit.at for limit in limits)])


def _next_stop(record: NodeRecord, now: float) -> float:
    """Return when to stop an attempt again. After its grace the pauses double."""
    grace_ends_at = record.cancel_by or now
    if now < grace_ends_at:
        return min(now + RESEND_CANCEL_SEC, grace_ends_at)
    return now + min(max(now - grace_ends_at, RESEND_CANCEL_SEC), LONGEST_STOP_PAUSE_SEC)


def _next_ask(record: NodeRecord, now: float, event: Woke, settings: EngineSettings) -> float:
    """Return when to ask about a running attempt next. If its worker sends no heartbeats, this is
    the time at which the attempt is lost.
    """
    if _suspect(record, event, settings):
        return now + max(1.0, patience_sec(record, settings) - event.silent[record.worker_id or ""])
    if record.worker_id not in event.silent:
        # The attempt started after the heartbeats were checked. Its worker may have been lost long
        # ago, if the report was late.
        return now + settings.lease_ttl_sec
    ran = now - (record.started_at or now)
    return now + max(settings.lease_ttl_sec, min(ran, LONGEST_ASK_PAUSE_SEC))
