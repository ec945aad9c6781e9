"""Conditions of nodes: evaluated, or delayed."""

from flowkit._engine.events import ConditionDelayed, ConditionEvaluated
from flowkit._engine.node_ends import fail_node, skip
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.task import Mark, NodeRecord


def condition_evaluated(
    draft: Transition, event: ConditionEvaluated, settings: EngineSettings
) -> None:
    """Queue a node whose condition is true, skip it if it is false, fail it on an error."""
    if draft.mark(event.index) not in NODE_REPORTS[ConditionEvaluated] or (
        event.since is not None and event.since != draft.record(event.index).issued_at
    ):
        draft.ignored = True
    elif event.error is not None:
        record = draft.edit(event.index)
        record.reason_code, record.error = "bad_condition", event.error
        fail_node(draft, event.index, settings)
    elif event.value:
        draft.move(event.index, Mark.READY)
        draft.queue(event.index)
    else:
        skip(draft, event.index, "condition_false", settings)


def condition_delayed(draft: Transition, event: ConditionDelayed, settings: EngineSettings) -> None:
    """Record when the evaluation of a condition was delayed, and schedule a check: the coordinator
    that evaluates it may die.
    """
    if draft.mark(event.index) not in NODE_REPORTS[ConditionDelayed] or is_delayed(
        draft.record(event.index)
    ):
        draft.ignored = True
        return
    draft.edit(event.index).issued_at = draft.now
    draft.schedule(event.index, draft.now + settings.resend_sec)


def is_delayed(record: NodeRecord | None) -> bool:
    """Return whether the condition of a node that is being checked was delayed."""
    return record is not None and record.issued_at > 0
