"""Stops of nodes that are no longer needed."""

from flowkit._engine.effects import SendCancel
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import stop_cause
from flowkit._engine.transition import Transition
from flowkit.task import ENDED, UNBEGUN, Mark

RESEND_CANCEL_SEC = 1.0
"""Time until a cancellation is sent again."""


def stop_everything(draft: Transition, reason_code: str, settings: EngineSettings) -> None:
    """Stop all nodes of a task that have not ended."""
    draft.paused = False
    for index in range(len(draft.task.marks)):
        mark = draft.mark(index)
        if mark not in ENDED and mark != Mark.CANCELLING:
            stop_node(draft, index, mark, reason_code, settings)


def stop_node(
    draft: Transition, index: int, mark: int, reason_code: str, settings: EngineSettings
) -> None:
    """Cancel a node that has not started, and ask the worker of a running one to stop."""
    has_record = index in draft.task.records or index in draft.records
    if mark in UNBEGUN and not has_record and reason_code != "not_needed":
        # No record is needed: the node is stopped with its task, which holds the reason.
        draft.move(index, Mark.CANCELLED, data={"reason_code": reason_code})
        return
    record = draft.edit(index)
    record.reason_code = reason_code
    if mark in (Mark.ISSUED, Mark.RUNNING):
        token = draft.task.spec.token(index, record.attempt, record.handovers)
        draft.effects.append(
            SendCancel(
                index,
                record.attempt,
                token,
                stop_cause(draft, index, reason_code)[1] or reason_code,
            )
        )
    if mark == Mark.RUNNING:
        record.cancel_by = draft.now + settings.cancel_grace_sec
        draft.wake(min(draft.now + RESEND_CANCEL_SEC, record.cancel_by))
        draft.move(index, Mark.CANCELLING, data={"reason_code": reason_code})
        return
    record.finished_at = draft.now
    draft.move(index, Mark.CANCELLED, data={"reason_code": reason_code})
