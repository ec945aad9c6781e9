"""Concurrency key of a graph, of which a task has a place from its first node until its end."""

from flowkit._engine.effects import ReturnKey
from flowkit._engine.node_ends import stop_everything
from flowkit._engine.node_starts import decide_waiting
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import KEY_BUSY
from flowkit._engine.transition import NOTHING_TO_RETURN, Transition
from flowkit.task import WHOLE_TASK, KeyClaim, Mark, TaskStatus


def task_granted(draft: Transition, claim: KeyClaim, settings: EngineSettings) -> None:
    """Begin a task that has a place. A paused one gives it back, and keeps its rank."""
    draft.key = claim
    if draft.paused:
        return_place(draft)
        draft.key = claim.in_state("unused")
        return
    for index in draft.task.spec.plan.order:
        if draft.mark(index) == Mark.WAITING and index < draft.task.spec.plan.main:
            decide_waiting(draft, index, settings)


def task_busy(draft: Transition, claim: KeyClaim, error: str, settings: EngineSettings) -> None:
    """End a task that does not wait for its key. None of its nodes has begun."""
    draft.key = claim
    key = draft.task.spec.plan.key
    if key is not None and key.on_conflict == "skip":
        draft.outcome, draft.reason = TaskStatus.CANCELLED, error
    else:
        draft.outcome, draft.error = TaskStatus.FAILED, error
    stop_everything(draft, KEY_BUSY, settings)


def task_unnamed(draft: Transition, error: str, settings: EngineSettings) -> None:
    """Fail a task of which the key cannot be evaluated."""
    draft.outcome, draft.error = TaskStatus.FAILED, f"bad_expression: {error}"
    stop_everything(draft, "task_failed", settings)


def return_place(draft: Transition) -> None:
    """Give back the place of a task, or take the task out of the queue."""
    claim = draft.key
    if claim is None or claim.is_over:
        return
    draft.key = claim.in_state("over")
    if claim.state not in NOTHING_TO_RETURN:
        draft.effects.append(ReturnKey(WHOLE_TASK, claim))
