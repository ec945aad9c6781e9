"""Pauses of nodes, and their early ends."""

from flowkit._engine.events import RunNowRequested
from flowkit._engine.node_ends import finish_node
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.task import Mark, NodeRecord


def pause_end(mark: int, record: NodeRecord) -> float | None:
    """Return when the pause of a node ends: before its next attempt, before the next round of a
    loop, or of a sleep. None if it has no pause.
    """
    if mark != Mark.DEFERRED or record.queued_for:
        return None
    if record.next_retry_at is not None:
        return record.next_retry_at
    return None if record.wait is None or record.wait.kind != "timer" else record.wait.until


def run_now(draft: Transition, event: RunNowRequested, settings: EngineSettings) -> None:
    """End a pause as if its time had come."""
    index = event.index
    record = draft.record(index)
    if (
        draft.mark(index) not in NODE_REPORTS[RunNowRequested]
        or pause_end(draft.mark(index), record) != event.until
    ):
        draft.ignored = True
        return
    data = {"run_now": True}
    if record.next_retry_at is not None or index in draft.task.spec.plan.nested:
        draft.move(index, Mark.READY, data=data)
        draft.queue(index)
    else:
        finish_node(draft, index, settings, data=data)
