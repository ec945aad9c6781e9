"""Nodes that run child tasks, and child tasks that follow the nodes that run them.

A node runs while its child task does, and ends after it. :class:`RunChild` brings the child in line
with the node, and is repeated until the node has ended. A loop has a child task for each of its
rounds, one after the other: see :mod:`flowkit._engine.loops`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import floor, log2

from flowkit._engine.effects import RunChild
from flowkit._engine.events import ChildFailed, ChildFinished, ChildrenCreated, RoundChecked
from flowkit._engine.loops import (
    begin_round,
    finish_loop,
    next_link,
    overdue_error,
    resume_loop,
    round_finished,
)
from flowkit._engine.map_expansion import begun_children
from flowkit._engine.node_ends import end_cancelled, fail_attempt, finish_node
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.graph._expanded_plan import is_map, runs_child_task
from flowkit.messages import ChildEnded
from flowkit.task import Mark, NodeRecord, ParentNode, Task

FOLLOWED = frozenset({Mark.RUNNING, Mark.CANCELLING})
"""Marks of a node in which its child task follows it."""
LONGEST_PAUSE_SEC = 320.0
"""Longest pause between two checks of a child task: the notice of its end may be lost."""


def child_node(task: Task, index: int, record: NodeRecord) -> ParentNode:
    """Return the node as the parent of its current child task."""
    return ParentNode(
        task.spec.task_id,
        task.spec.plan.ids[index],
        index,
        record.generation,
        record.attempt,
        task.pauses,
        None if record.child is None else record.child.iteration,
        task.spec.is_exclusive(index),
    )


def shown_child(task: Task, index: int, record: NodeRecord) -> str | None:
    """Return the id of the child task of a node: in a loop, of the last round that has begun."""
    if record.child is None:
        return None
    if record.child.iteration is None:
        return child_node(task, index, record).child_id()
    return next(iter(shown_rounds(task, index, record, most=1).values()), None)


def shown_rounds(task: Task, index: int, record: NodeRecord, *, most: int) -> dict[int, str]:
    """Return the ids of the child tasks of the last rounds of a loop that have begun, by the number
    of the round. They are empty for other nodes.
    """
    last = None if record.child is None else record.child.shown_iteration
    if last is None:
        return {}
    node = child_node(task, index, record)
    return {
        iteration: replace(node, iteration=iteration).child_id()
        for iteration in range(max(last - most + 1, 0), last + 1)
    }


def start_child(draft: Transition, index: int, record: NodeRecord) -> None:
    """Start the attempt of a node that runs a child task. ``record`` may be changed."""
    record.started_at = draft.now
    record.child = next_link(draft.task.spec.plan.nodes[index], record.child)
    draft.started_at = draft.started_at or draft.now
    draft.effects.append(RunChild(index, record.attempt))


def children_created(draft: Transition, event: ChildrenCreated, settings: EngineSettings) -> None:
    """Record that child tasks are stored."""
    draft.ignored = True
    for node in event.nodes:
        link = draft.record(node.index).child
        current = _is_current(draft, node, ChildrenCreated)
        if current and link is not None and not link.created:
            draft.edit(node.index).child = replace(link, created=True)
            draft.ignored = False


def child_ended(draft: Transition, event: ChildEnded, settings: EngineSettings) -> None:
    """Read the end of a child task from the store. The message is only a hint."""
    draft.ignored = True
    index, task = event.index, draft.task
    if index >= len(task.marks) or not runs_child_task(task.spec.plan, index):
        return
    if draft.mark(index) in FOLLOWED:
        draft.effects.append(RunChild(index, draft.record(index).attempt))


def child_finished(draft: Transition, event: ChildFinished, settings: EngineSettings) -> None:
    """Finish a node with the result of its child task, or begin the next round of a loop."""
    if not _is_current(draft, event, type(event)):
        draft.ignored = True
    elif draft.record(event.index).resolution is not None:
        end_cancelled(draft, event.index, settings)
    elif event.iteration is not None:
        round_finished(draft, event, settings)
    else:
        draft.edit(event.index).result = event.result
        finish_node(draft, event.index, settings)


def child_failed(draft: Transition, event: ChildFailed, settings: EngineSettings) -> None:
    """Fail the attempt of a node whose child task did not finish."""
    if not _is_current(draft, event, type(event)):
        draft.ignored = True
        return
    reason_code, error, permanent = event.reason_code, event.error, event.permanent
    link = draft.record(event.index).child
    if link is not None and link.overdue:
        reason_code, error, permanent = *overdue_error(draft, event.index), False
    if link is not None and event.missing:
        without = None if link.iteration is None else replace(link, due=False)
        draft.edit(event.index).child = without
    fail_attempt(draft, event.index, reason_code, error, settings, permanent=permanent)


def round_checked(draft: Transition, event: RoundChecked, settings: EngineSettings) -> None:
    """Begin a round of a loop, or finish the loop without it."""
    link = draft.record(event.index).child
    if not _is_current(draft, event, type(event)) or link is None or link.due or link.overdue:
        draft.ignored = True
    elif event.goes_on:
        begin_round(draft, event.index, settings)
    else:
        finish_loop(draft, event.index, link.previous, settings)


def _is_current(
    draft: Transition, about: ParentNode | ChildFinished | ChildFailed | RoundChecked, event: type
) -> bool:
    """Return whether an event is about the current attempt of a node, and its current round."""
    record = draft.record(about.index)
    return (
        draft.mark(about.index) in NODE_REPORTS[event]
        and about.attempt == record.attempt
        and record.child is not None
        and about.iteration == record.child.iteration
    )


# ---------------------------------------------------------------- time


def child_woke(draft: Transition, index: int) -> None:
    """Check the child task of a node, and have it stopped if the attempt is overdue."""
    record = draft.record(index)
    link, limit = record.child, draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    if (
        limit is not None
        and draft.mark(index) == Mark.RUNNING
        and draft.now >= record.issued_at + limit
        and link is not None
        and not link.overdue
    ):
        draft.edit(index).child = replace(link, overdue=True)
    draft.effects.append(RunChild(index, record.attempt))


def next_child_wake(draft: Transition, index: int, settings: EngineSettings) -> float:
    """Return when to check the child task of a node next.

    The pauses double. They end at times that all nodes of the task have in common, so that it wakes
    once for all of its child tasks.
    """
    record = draft.record(index)
    now, created_at = draft.now, draft.task.spec.created_at
    since = record.issued_at if record.heard_at is None else record.heard_at
    waited = min(max(now - since, settings.resend_sec), LONGEST_PAUSE_SEC / 2)
    step = settings.resend_sec * 2.0 ** floor(log2(waited / settings.resend_sec))
    check_at = created_at + (floor((now - created_at) / step) + 2) * step
    limit = draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    if limit is None or draft.mark(index) != Mark.RUNNING or now >= record.issued_at + limit:
        return check_at
    return min(check_at, record.issued_at + limit)


def force_children(draft: Transition) -> None:
    """Let the child tasks follow a forced cancel, also those that are being stopped."""
    draft.forced = draft.forced or bool(draft.task.spec.plan.nested)
    for index in _followed(draft):
        if draft.mark(index) == Mark.CANCELLING:
            draft.effects.append(RunChild(index, draft.record(index).attempt))


def runs_children(draft: Transition) -> bool:
    """Return whether child tasks follow nodes of the task."""
    return next(_followed(draft), None) is not None


def run_children(draft: Transition) -> None:
    """Bring all child tasks in line with their nodes, when the task is paused or resumed."""
    for index in _followed(draft):
        if not draft.paused:
            resume_loop(draft, index)
        draft.effects.append(RunChild(index, draft.record(index).attempt))


def _followed(draft: Transition) -> Iterator[int]:
    """Yield the nodes whose child tasks follow them."""
    task = draft.task
    for index in task.spec.plan.nested:
        if not is_map(task.spec.plan, index):
            begun: Iterable[int] = (index,)
        elif index in task.maps:
            begun = begun_children(task.marks, task.maps[index])
        else:
            continue
        yield from (node for node in begun if draft.mark(node) in FOLLOWED)
