"""Failures of attempts: retry later, or fail the node."""

from flowkit._engine.effects import DropLetter, KeepLetter
from flowkit._engine.node_stops import stop_everything
from flowkit._engine.propagation import end_cancelled, pass_on
from flowkit._engine.readiness import handles_failure
from flowkit._engine.retries import retry_delay
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.graph import Plan
from flowkit.task import Mark, NodeRecord, TaskStatus


def fail_attempt(
    draft: Transition,
    index: int,
    reason_code: str,
    error: str,
    settings: EngineSettings,
    *,
    permanent: bool = False,
    parked: bool = False,
) -> None:
    """Retry the current attempt later if the policy allows; otherwise fail the node.

    A failed node gets a dead letter, unless the worker has ``parked`` one.
    """
    if draft.mark(index) == Mark.CANCELLING:
        end_cancelled(draft, index, settings)
        return
    record = draft.edit(index)
    record.reason_code, record.error = reason_code, error
    delay = retry_delay(
        draft.task.spec.plan.nodes[index].retry_policy,
        attempts_made=record.attempt - record.first_attempt + 1,
        reason_code=reason_code,
        permanent=permanent,
        spent_sec=draft.now - record.first_issued_at,
        token=draft.task.spec.token(index, record.attempt, record.handovers),
    )
    if delay is None:
        drop_letter(draft, index)
        if not parked:
            record.letter = record.attempt
            draft.letters.append(KeepLetter(index))
        fail_node(draft, index, settings)
        return
    record.next_retry_at = draft.now + delay
    draft.move(
        index,
        Mark.DEFERRED,
        data={"reason_code": reason_code, "error": error, "attempt": record.attempt},
    )
    draft.wake(record.next_retry_at)


def fail_node(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Fail a node that has no attempt left. If no branch handles the failure, the graph's
    ``on_node_failure`` decides whether the task stops.
    """
    record = draft.edit(index)
    record.finished_at = draft.now
    plan = draft.task.spec.plan
    draft.move(index, Mark.FAILED, data={"reason_code": record.reason_code, "error": record.error})
    if not handles_failure(plan, index):
        if draft.error is None:
            draft.error = failure_sentence(plan, index, record)
        if plan.on_node_failure == "stop":
            draft.outcome = TaskStatus.FAILED
            stop_everything(draft, "task_failed", settings)
            return
    pass_on(draft, [index], settings)


def failure_sentence(plan: Plan, index: int, record: NodeRecord) -> str:
    """Return the error of a task that failed because of a node."""
    return f"node {plan.ids[index]!r} failed: {record.reason_code}: {record.error}"


def drop_letter(draft: Transition, index: int) -> None:
    """Drop the dead letter of an earlier run of the node, if there is one."""
    record = draft.edit(index)
    if record.letter:
        draft.letters.append(DropLetter(index, record.letter))
        record.letter = 0
