"""Segments: chains of nodes that a worker runs one after the other in one slot.

The command of the first node carries the next ones. The worker reports the success of a node and
the start of the next one in one message, so both are stored in one commit: a node of a segment is
never issued without being started, and a restart has nothing to send. Where the worker does not go
on, the next node is issued as usual.
"""

from hmac import compare_digest

from flowkit._engine.effects import EndSegments, SendCancel
from flowkit._engine.node_starts import begin_attempt, record_start
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.messages import NextStart, NodeSucceeded
from flowkit.task import Mark, SegmentIssue


def start_next(
    draft: Transition, event: NodeSucceeded, start: NextStart, settings: EngineSettings
) -> None:
    """Start the node with which the worker goes on after a success that counts. A task that was
    paused meanwhile ends its segments.
    """
    index = start.index
    if index >= len(draft.task.marks):
        return
    record = draft.record(index)
    issued = max(record.attempt + 1, record.first_attempt), record.handovers
    token = draft.spec.token_after(event.token, index, *issued)
    is_right = start.attempt == issued[0] and compare_digest(token, start.token)
    if not is_right or draft.mark(index) != Mark.READY:
        refuse_next(draft, start)
        if is_right and draft.mark(index) == Mark.CANCELLED and not record.attempt:
            _note_start_of_cancelled(draft, event, index, SegmentIssue(*issued, token))
        return
    draft.edit(index).segment = SegmentIssue(*issued, token)
    begin_attempt(draft, index, draft.spec.plan.nodes[index], settings)
    record_start(draft, index, event.worker_id, event.at, settings)
    if draft.paused:
        draft.effects.append(EndSegments())


def _note_start_of_cancelled(
    draft: Transition, event: NodeSucceeded, index: int, issue: SegmentIssue
) -> None:
    """Record the attempt of a node that was cancelled while its worker began it."""
    record = draft.edit(index)
    record.segment, record.attempt = issue, issue.attempt
    record.worker_id, record.started_at, record.finished_at = event.worker_id, event.at, draft.now


def refuse_next(draft: Transition, start: NextStart) -> None:
    """Cancel the start of a node that does not count. One that has counted before is left alone."""
    if start.index >= len(draft.task.marks):
        return
    issue = draft.record(start.index).segment
    if issue is None or not compare_digest(issue.token, start.token):
        draft.effects.append(
            SendCancel(start.index, start.attempt, start.token, "the node before has another end")
        )
