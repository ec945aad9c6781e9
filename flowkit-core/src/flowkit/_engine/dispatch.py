"""Starts of nodes: from waiting to issued."""

from typing import Any

from flowkit._engine.effects import CallFunction, SendCommand
from flowkit._engine.propagation import cancel_parents, skip
from flowkit._engine.readiness import BROKEN, TAKEN, Readiness, never_because, readiness
from flowkit._engine.ready_nodes import make_ready, may_stream
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.task import Mark, NodeRecord

COORDINATOR_FUNCTION = "coordinator_fn"


def decide_waiting(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Make a waiting node ready if its fan-in is met, or skip it if its fan-in is impossible."""
    plan = draft.task.spec.plan
    match readiness(plan.need[index], len(plan.parents[index]), *draft.count(index)):
        case Readiness.START:
            make_ready(draft, index)
        case Readiness.WAIT if may_stream(draft, index):
            make_ready(draft, index)
        case Readiness.NEVER:
            skip(draft, index, never_because(draft.count(index)[BROKEN]), settings)


def issue_ready_nodes(draft: Transition, settings: EngineSettings) -> None:
    """Issue ready nodes until ``max_in_flight`` nodes are in flight."""
    if draft.paused or draft.outcome is not None:
        return
    while draft.in_flight < settings.max_in_flight:
        index = draft.next_ready()
        if index is None:
            return
        _issue(draft, index, settings)


def _issue(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Issue the next attempt of a node."""
    now = draft.now
    node = draft.task.spec.plan.nodes[index]
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    record.issued_at = now
    record.first_issued_at = record.first_issued_at or now
    record.sent = False
    record.place = None
    record.claimed = settings.sends
    record.confirmed_at = None
    record.worker_id = record.started_at = record.heard_at = None
    record.next_retry_at = record.finished_at = None
    if node.type == COORDINATOR_FUNCTION:
        draft.move(index, Mark.RUNNING, data=_attempt(record))
        record.started_at = now
        draft.started_at = draft.started_at or now
        draft.effects.append(CallFunction(index, record.attempt))
        limit = node.timeouts.start_to_close_sec
    else:
        draft.move(index, Mark.ISSUED, data=_attempt(record))
        draft.effects.append(SendCommand(index, record.attempt))
        limit = node.timeouts.schedule_to_start_sec
    draft.wake(now + (settings.resend_sec if limit is None else min(limit, settings.resend_sec)))
    if (
        node.on_satisfied == "cancel"
        and 0 <= draft.task.spec.plan.need[index] <= draft.count(index)[TAKEN]
    ):
        cancel_parents(draft, [index], settings)


def _attempt(record: NodeRecord) -> dict[str, Any] | None:
    """Return the data of the event in the history: the number of an attempt after the first."""
    return {"attempt": record.attempt} if record.attempt > 1 else None
