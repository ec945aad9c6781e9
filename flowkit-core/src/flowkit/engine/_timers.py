"""What the passing of time does to a task."""

from flowkit.engine._draft import Transition
from flowkit.engine._effects import CallFunction, SendCancel, SendCommand
from flowkit.engine._events import Woke
from flowkit.engine._nodes import COORDINATOR_FUNCTION, RESEND_CANCEL_SEC, end_cancelled, fail_attempt, stop_everything
from flowkit.engine._settings import EngineSettings
from flowkit.task import ENDED, Mark, NodeRecord, TaskStatus


def woke(draft: Transition, event: Woke, settings: EngineSettings) -> None:
    """Everything that is due by now, and when to look next."""
    task, now = draft.task, draft.now
    if draft.status.terminal:
        draft.ignored = True
        return
    if draft.deadline_at is not None and now >= draft.deadline_at and draft.outcome is None:
        draft.outcome = TaskStatus.FAILED
        draft.error = "the task's deadline passed"
        stop_everything(draft, "deadline_exceeded", settings)
    else:
        for index in sorted(task.records):
            if task.marks[index] not in ENDED:
                _node_woke(draft, index, event, settings)
    draft.wake_at = None
    if draft.outcome is None:
        draft.wake(draft.deadline_at)
    for index in {*task.records, *draft.records}:
        draft.wake(_next_look(draft, index, settings))


def _node_woke(draft: Transition, index: int, event: Woke, settings: EngineSettings) -> None:
    mark = draft.mark(index)
    record = draft.record(index)
    now = draft.now
    if mark == Mark.DEFERRED:
        if now >= (record.next_retry_at or now):
            draft.move(index, Mark.READY)
            draft.queue(index)
    elif mark == Mark.CANCELLING:
        if now >= (record.cancel_by or now):
            end_cancelled(draft, index, settings)
        else:
            token = draft.task.spec.token(index, record.attempt, record.handovers)
            draft.effects.append(SendCancel(index, record.attempt, token, draft.reason or ""))
    elif mark in (Mark.ISSUED, Mark.RUNNING):
        overdue = _overdue(draft, index, mark, record, event, settings)
        if overdue is not None:
            if mark == Mark.RUNNING:
                token = draft.task.spec.token(index, record.attempt, record.handovers)
                draft.effects.append(SendCancel(index, record.attempt, token, overdue[0]))
            fail_attempt(draft, index, *overdue, settings)
        elif now - record.issued_at >= settings.resend_sec:
            _do_what_was_left(draft, index, mark, record)


def _do_what_was_left(draft: Transition, index: int, mark: int, record: NodeRecord) -> None:
    if mark == Mark.ISSUED and not record.sent:
        draft.effects.append(SendCommand(index, record.attempt))
    elif mark == Mark.RUNNING and draft.task.spec.plan.nodes[index].type == COORDINATOR_FUNCTION:
        draft.effects.append(CallFunction(index, record.attempt))


def _overdue(draft: Transition, index: int, mark: int, record: NodeRecord, event: Woke, settings: EngineSettings) -> tuple[str, str] | None:
    """Which of its time limits an attempt has passed: a reason code and a sentence."""
    node = draft.task.spec.plan.nodes[index]
    timeouts, now = node.timeouts, draft.now
    if mark == Mark.ISSUED:
        limit = timeouts.schedule_to_start_sec
        if limit is not None and now - record.issued_at >= limit:
            return "schedule_to_start_timeout", f"no worker began it within {limit:g} s"
        return None
    limit = timeouts.start_to_close_sec
    if limit is not None and now - (record.started_at or record.issued_at) >= limit:
        return "start_to_close_timeout", f"it ran longer than {limit:g} s"
    limit = timeouts.heartbeat_sec
    if limit is not None and record.heard_at is not None and now - record.heard_at >= limit:
        return "heartbeat_timeout", f"no heartbeat for {limit:g} s"
    silence = event.silent.get(record.worker_id or "")
    if silence is not None and silence >= patience_sec(record, settings):
        return "worker_lost", f"worker {record.worker_id!r} was silent for {silence:.0f} s"
    return None


def patience_sec(record: NodeRecord, settings: EngineSettings) -> float:
    """For how long a silent worker keeps this attempt: leases double with each attempt, so that a slow cluster is not overrun."""
    lease: float = settings.lease_ttl_sec * 2 ** min(record.attempt - record.first_attempt, 10)
    return max(lease, settings.worker_lost_sec)


def _next_look(draft: Transition, index: int, settings: EngineSettings) -> float | None:
    mark = draft.mark(index)
    record = draft.record(index)
    now = draft.now
    if mark == Mark.DEFERRED:
        return record.next_retry_at
    if mark == Mark.CANCELLING:
        return min(now + RESEND_CANCEL_SEC, record.cancel_by or now)
    node = draft.task.spec.plan.nodes[index]
    timeouts = node.timeouts
    if mark == Mark.ISSUED:
        looks = [record.issued_at + timeouts.schedule_to_start_sec] if timeouts.schedule_to_start_sec is not None else []
        if not record.sent:
            looks.append(now + settings.resend_sec)
        return min(looks, default=None)
    if mark == Mark.RUNNING:
        looks = [now + settings.lease_ttl_sec]
        if timeouts.start_to_close_sec is not None:
            looks.append((record.started_at or record.issued_at) + timeouts.start_to_close_sec)
        if timeouts.heartbeat_sec is not None and record.heard_at is not None:
            looks.append(record.heard_at + timeouts.heartbeat_sec)
        return min(looks)
    return None
