"""Waiting nodes that become ready."""

from flowkit._engine.effects import EvaluateCondition
from flowkit._engine.transition import Transition
from flowkit.task import ENDED, Mark


def make_ready(draft: Transition, index: int) -> None:
    """Queue a node whose fan-in is met, or have its condition evaluated first."""
    if draft.task.spec.plan.nodes[index].when is not None:
        draft.move(index, Mark.CHECKING)
        draft.effects.append(EvaluateCondition(index))
        return
    draft.move(index, Mark.READY)
    draft.queue(index)


def may_stream(draft: Transition, child: int) -> bool:
    """Return whether a waiting node may start on a batch: a parent that streams to it has stored
    one, and the other parents have ended.
    """
    has_batch = False
    for edge in draft.task.spec.plan.parents[child]:
        if edge.streams:
            has_batch = has_batch or draft.record(edge.node).has_batch
        elif draft.mark(edge.node) not in ENDED:
            return False
    return has_batch
