"""Segments: chains of nodes that a worker runs one after the other in one slot.

The command of the first node carries the next ones. The worker reports the success of a node and
the start of the next one in one message, so both are stored in one commit: a node of a segment is
never issued without being started, and a restart has nothing to send. Where the worker does not go
on, the next node is issued as usual.

The record of a node says how many nodes its worker may begin after it: a *promise*. A task that is
being stopped keeps these open, and one that an operator resolves stays open too, until it is known
whether the worker has begun them: the worker says so with the end of the node before them, and also
when it hears that it must begin none.

A worker may have begun the next node when it hears that an operator has resolved the one before.
This *stray* run has read a result that does not count. It is stopped, and the resolved node ends
after it. Then its node waits again, and its next attempt has another number.
"""

from collections.abc import Iterator
from hmac import compare_digest

from flowkit._engine.effects import EndSegments, SendCancel
from flowkit._engine.node_ends import stop_node
from flowkit._engine.node_starts import begin_attempt, record_start
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import RESOLVED, task_stop_code
from flowkit._engine.transition import Transition
from flowkit.messages import NextStart, NodeSucceeded
from flowkit.task import ATTEMPTED, STOPPED, Mark, SegmentIssue


def start_next(
    draft: Transition, event: NodeSucceeded, start: NextStart, settings: EngineSettings
) -> None:
    """Start the node with which the worker goes on after a success that counts. A task that was
    paused meanwhile ends its segments. One that is being stopped stops the node as well, and so
    does an operator who has resolved this node, or the one before.
    """
    index = start.index
    if index >= len(draft.task.marks):
        return
    issue = _issue_of(draft, event, start)
    before_is_stopped = draft.main_is_stopping or draft.mark(event.index) == Mark.CANCELLING
    stops = before_is_stopped and draft.mark(index) == Mark.WAITING
    if issue is None or not (stops or draft.mark(index) == Mark.READY):
        refuse_next(draft, event, start)
        return
    if stops:
        draft.move(index, Mark.READY)
    record, before = draft.edit(index), draft.record(event.index)
    record.segment = issue
    record.promised = max(before.promised - 1, 0)
    begin_attempt(draft, index, draft.spec.plan.nodes[index], settings, at=event.at)
    # A worker whose clock is wrong must not change a timeout.
    record.issued_at = record.first_issued_at = min(max(event.at, before.issued_at), draft.now)
    record_start(draft, index, event.worker_id, event.at, settings)
    if stops or record.resolution is not None:
        code = task_stop_code(draft) if draft.main_is_stopping else RESOLVED
        stop_node(draft, index, Mark.RUNNING, code, settings)
    if stops or draft.paused:
        draft.effects.append(EndSegments())


def end_promises(draft: Transition, settings: EngineSettings) -> None:
    """End the nodes that were kept open because a worker could begin them, and that none can begin
    any more: those of a task that is being stopped, and those that an operator has resolved.
    """
    for index in [*draft.records]:
        if not draft.task.record(index).promised:
            continue
        for one in _without_promise(draft, index):
            if draft.main_is_stopping:
                stop_node(draft, one, draft.mark(one), task_stop_code(draft), settings)
            elif draft.record(one).resolution is not None:
                stop_node(draft, one, draft.mark(one), RESOLVED, settings)


def _without_promise(draft: Transition, index: int) -> Iterator[int]:
    """Yield the nodes that the command of a node carried and that have not begun, and that no
    worker can begin without a command any more.
    """
    left = 0
    for position in range(draft.task.record(index).promised + 1):
        mark = draft.mark(index)
        if mark in ATTEMPTED:
            left = draft.record(index).promised
        elif position == 0 or mark not in _NOT_BEGUN:
            left = 0
        elif left:
            left -= 1
        else:
            yield index
        children = draft.task.spec.plan.children[index]
        if not children:
            return
        index = children[0].node


def refuse_next(draft: Transition, event: NodeSucceeded, start: NextStart) -> None:
    """Cancel the start of a node that does not count. One that has counted before is left alone.

    The number of its attempt is used up, so that the next attempt has another one.
    """
    index = start.index
    if index >= len(draft.task.marks):
        return
    counted = draft.record(index).segment
    if counted is not None and compare_digest(counted.token, start.token):
        return
    draft.effects.append(
        SendCancel(index, start.attempt, start.token, "the node before has another end")
    )
    issue, mark = _issue_of(draft, event, start), draft.mark(index)
    is_stopped = mark in STOPPED
    if issue is None or draft.record(index).attempt or draft.status.terminal:
        return
    if not is_stopped and mark not in _NOT_BEGUN:
        return
    record = draft.edit(index)
    record.attempt = issue.attempt
    if is_stopped:
        record.segment, record.worker_id, record.started_at = issue, event.worker_id, event.at
    else:
        record.first_attempt = issue.attempt + 1
    draft.ignored = False


_NOT_BEGUN = frozenset({Mark.WAITING, Mark.READY})


def _issue_of(draft: Transition, event: NodeSucceeded, start: NextStart) -> SegmentIssue | None:
    """Return the issue of the attempt that a worker began after this success; None if the next
    attempt of the node would be another one.
    """
    record = draft.record(start.index)
    issued = max(record.attempt + 1, record.first_attempt), record.handovers
    token = draft.spec.token_after(event.token, start.index, *issued)
    is_right = start.attempt == issued[0] and compare_digest(token, start.token)
    return SegmentIssue(*issued, token) if is_right else None
