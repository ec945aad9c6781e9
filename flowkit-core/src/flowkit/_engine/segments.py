"""Segments: chains of nodes that a worker runs one after the other in one slot.

The command of the first node carries the next ones. The worker reports the success of a node and
the start of the next one in one message, so both are stored in one commit: a node of a segment is
never issued without being started, and a restart has nothing to send. Where the worker does not go
on, the next node is issued as usual.

The record of the first node says how many nodes its command carries. A task that is being stopped
keeps these open until the end of the node before them says whether the worker has begun them.
"""

from hmac import compare_digest

from flowkit._engine.effects import EndSegments, SendCancel
from flowkit._engine.node_ends import stop_node
from flowkit._engine.node_starts import begin_attempt, record_start
from flowkit._engine.segment_rules import promised_nodes
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import task_stop_code
from flowkit._engine.transition import Transition
from flowkit.messages import NextStart, NodeSucceeded
from flowkit.task import ENDED, STOPPED, Mark, SegmentIssue


def start_next(
    draft: Transition, event: NodeSucceeded, start: NextStart, settings: EngineSettings
) -> None:
    """Start the node with which the worker goes on after a success that counts. A task that was
    paused meanwhile ends its segments. One that is being stopped stops the node as well.
    """
    index = start.index
    if index >= len(draft.task.marks):
        return
    record, before = draft.record(index), draft.record(event.index)
    issued = max(record.attempt + 1, record.first_attempt), record.handovers
    token = draft.spec.token_after(event.token, index, *issued)
    is_right = start.attempt == issued[0] and compare_digest(token, start.token)
    stops = draft.main_is_stopping and draft.mark(index) == Mark.WAITING
    if not is_right or not (stops or draft.mark(index) == Mark.READY):
        refuse_next(draft, start)
        if is_right and draft.mark(index) in STOPPED and not record.attempt:
            _note_start_of_stopped(draft, event, index, SegmentIssue(*issued, token))
        return
    if stops:
        draft.move(index, Mark.READY)
    record = draft.edit(index)
    record.segment = SegmentIssue(*issued, token)
    record.promised = max(before.promised - 1, 0)
    begin_attempt(draft, index, draft.spec.plan.nodes[index], settings, at=event.at)
    # A worker whose clock is wrong must not change a timeout.
    record.issued_at = record.first_issued_at = min(max(event.at, before.issued_at), draft.now)
    record_start(draft, index, event.worker_id, event.at, settings)
    if stops:
        stop_node(draft, index, Mark.RUNNING, task_stop_code(draft), settings)
    if stops or draft.paused:
        draft.effects.append(EndSegments())


def end_promises(draft: Transition, settings: EngineSettings) -> None:
    """Cancel the nodes of a task that is being stopped that no worker can begin any more, because
    the node before them has ended without their start.
    """
    for index in [*draft.marks]:
        if draft.mark(index) in ENDED:
            for one in [*promised_nodes(draft, index)]:
                stop_node(draft, one, Mark.WAITING, task_stop_code(draft), settings)


def _note_start_of_stopped(
    draft: Transition, event: NodeSucceeded, index: int, issue: SegmentIssue
) -> None:
    """Record the attempt of a node that was skipped by an operator while its worker began it."""
    record = draft.edit(index)
    record.segment, record.attempt = issue, issue.attempt
    record.worker_id, record.started_at = event.worker_id, event.at


def refuse_next(draft: Transition, start: NextStart) -> None:
    """Cancel the start of a node that does not count. One that has counted before is left alone."""
    if start.index >= len(draft.task.marks):
        return
    issue = draft.record(start.index).segment
    if issue is None or not compare_digest(issue.token, start.token):
        draft.effects.append(
            SendCancel(start.index, start.attempt, start.token, "the node before has another end")
        )
