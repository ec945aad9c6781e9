"""Segments: chains of nodes that a worker runs one after the other in one slot.

The command of the first node carries the next ones. The worker reports the success of a node and
the start of the next one in one message, so both are stored in one commit: a node of a segment is
never issued without being started, and a restart has nothing to send. Where the worker does not go
on, the next node is issued as usual.

The record of a node says how many nodes its worker may begin after it: a *promise*. A task that is
being stopped keeps these open, and one that an operator resolves stays open too, until it is known
whether the worker has begun them: the worker says so with the end of the node before them, and also
when it hears that it must begin none.
"""

from collections.abc import Iterator
from hmac import compare_digest

from flowkit._engine.effects import EndSegments, SendCancel
from flowkit._engine.node_ends import stop_node
from flowkit._engine.node_starts import begin_attempt, record_start
from flowkit._engine.segment_rules import carrier_of, promised_nodes
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
    does an operator who has resolved it.
    """
    index = start.index
    if index >= len(draft.task.marks):
        return
    issue = _issue_of(draft, event, start)
    stops = draft.main_is_stopping and draft.mark(index) == Mark.WAITING
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
        code = task_stop_code(draft) if stops else RESOLVED
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
    draft.effects.append(_cancel_of(index, start.attempt, start.token))
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


def _cancel_of(index: int, attempt: int, token: str) -> SendCancel:
    return SendCancel(index, attempt, token, "the node before has another end")


def _issue_of(draft: Transition, event: NodeSucceeded, start: NextStart) -> SegmentIssue | None:
    """Return the issue of the attempt that a worker began after this success; None if the next
    attempt of the node would be another one.
    """
    record = draft.record(start.index)
    issued = max(record.attempt + 1, record.first_attempt), record.handovers
    token = draft.spec.token_after(event.token, start.index, *issued)
    is_right = start.attempt == issued[0] and compare_digest(token, start.token)
    return SegmentIssue(*issued, token) if is_right else None


# ---------------------------------------------------------------- strays


def goes_on_with_stray(draft: Transition, event: NodeSucceeded) -> bool:
    """Return whether a worker has begun the next node after this success of a node that was
    resolved meanwhile. This *stray* run has read a result that does not count. The resolved node
    ends after it, so that nothing begins beside it.
    """
    start = event.next
    if start is None or start.index >= len(draft.task.marks):
        return False
    handovers = draft.record(start.index).handovers
    token = draft.spec.token_after(event.token, start.index, start.attempt, handovers)
    return draft.mark(start.index) == Mark.WAITING and compare_digest(token, start.token)


def resolved_before_stray(draft: Transition, index: int, token: str) -> int | None:
    """Return the resolved node that ends after the stray run with this token; None if there is no
    such run.
    """
    if index >= len(draft.task.marks) or draft.mark(index) != Mark.WAITING:
        return None
    carrier = carrier_of(draft, index)
    if carrier is None or draft.mark(carrier) != Mark.CANCELLING:
        return None
    strays = (
        one == index and compare_digest(known, token) for one, known in _strays(draft, carrier)
    )
    return carrier if any(strays) else None


def cancels_of_strays(draft: Transition, index: int) -> list[SendCancel]:
    """Return the effects that cancel the stray runs after a resolved node once more."""
    return [
        _cancel_of(one, draft.record(one).attempt, token) for one, token in _strays(draft, index)
    ]


def _strays(draft: Transition, index: int) -> Iterator[tuple[int, str]]:
    """Yield the nodes that the worker of a node has begun although they do not count, with the
    tokens of these runs.
    """
    if draft.record(index).resolution is None:
        return
    token = draft.spec.current_token(index, draft.record(index))
    for one in promised_nodes(draft, index):
        record = draft.record(one)
        if not record.attempt:
            return
        token = draft.spec.token_after(token, one, record.attempt, record.handovers)
        yield one, token
