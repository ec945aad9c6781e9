"""When a node may start, and when it never will."""

from collections.abc import Mapping
from enum import Enum

from flowkit.graph import Plan, Route
from flowkit.task import ENDED, Mark, Task

TAKEN, EMPTY, BROKEN = range(3)
"""What an edge tells the child when its parent has ended: data is there, none was due, or the data
that was due is missing.
"""

Outcomes = tuple[int, int, int]
"""What an ended node's edges tell its children, by :class:`~flowkit.graph.Route`."""

OUTCOMES: Mapping[int, Outcomes] = {
    # the parent              always  on_success  on_failure
    Mark.FINISHED: (TAKEN, TAKEN, EMPTY),
    Mark.FAILED: (BROKEN, BROKEN, TAKEN),
    Mark.CANCELLED: (BROKEN, BROKEN, EMPTY),
    Mark.SKIPPED: (EMPTY, EMPTY, EMPTY),
    Mark.UPSTREAM_FAILED: (BROKEN, BROKEN, EMPTY),
}
HANDLED_FAILURE: Outcomes = (BROKEN, EMPTY, TAKEN)
"""Edges of a failed node with an ``on_failure`` branch: ``on_success`` counts as not taken."""

SKIPPED_AS: Mapping[str, int] = {
    "condition_false": Mark.SKIPPED,
    "upstream_skipped": Mark.SKIPPED,
    "upstream_failed": Mark.UPSTREAM_FAILED,
}
"""The mark of a skipped node, by its reason code."""


class Readiness(Enum):
    WAIT = "wait"
    START = "start"
    NEVER = "never"


def readiness(need: int, parents: int, taken: int, empty: int, broken: int) -> Readiness:
    """What the fan-in comes to. ``need`` is -1 for ``all``, else how many parents must end well (0
    of a root).

    A fan-in that cannot be met any more is NEVER at once.
    """
    pending = parents - taken - empty - broken
    if need < 0:
        if broken:
            return Readiness.NEVER
        if pending:
            return Readiness.WAIT
        return Readiness.START if taken else Readiness.NEVER
    if taken >= need:
        return Readiness.START
    return Readiness.WAIT if taken + pending >= need else Readiness.NEVER


def edge_outcomes(plan: Plan, index: int, mark: int) -> Outcomes:
    """What an ended node's edges tell its children."""
    return (
        HANDLED_FAILURE if mark == Mark.FAILED and handles_failure(plan, index) else OUTCOMES[mark]
    )


def never_because(broken: int) -> str:
    """The reason code of a node whose fan-in cannot be met any more."""
    return "upstream_failed" if broken else "upstream_skipped"


def handles_failure(plan: Plan, index: int) -> bool:
    """Whether a node has an ``on_failure`` branch, which is taken when it fails for good."""
    return any(edge.route is Route.ON_FAILURE for edge in plan.children[index])


def derive(task: Task) -> None:
    """Work out from what is stored everything that a task keeps at hand: counters, the queue for
    room, held keys.
    """
    plan, marks = task.spec.plan, task.marks
    size = len(marks)
    counts = [[0] * size, [0] * size, [0] * size]
    task.open = task.in_flight = task.deferred = task.failures = 0
    task.ready, task.key_holders, task.key_waiters, task.recalled = [], {}, {}, {}
    for index, mark in enumerate(marks):
        if mark in ENDED:
            outcomes = edge_outcomes(plan, index, mark)
            for edge in plan.children[index]:
                counts[outcomes[edge.route]][edge.node] += 1
            task.failures += mark == Mark.FAILED and not handles_failure(plan, index)
            continue
        task.open += 1
        node = plan.nodes[index]
        if mark == Mark.DEFERRED:
            task.deferred += 1
        elif mark in (Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING):
            task.in_flight += 1
            if node.concurrency_key is not None:
                task.key_holders[node.concurrency_key] = index
        elif mark == Mark.READY:
            task.ready.append((-node.priority, index))
    task.taken, task.empty, task.broken = counts
    task.ready.sort()


def contradiction(task: Task) -> str | None:
    """Return what in a derived task is never so between two changes; None if there is nothing. Such
    a task would never go on.
    """
    plan = task.spec.plan
    if task.terminal != (task.open == 0):
        return f"the task is {task.status.value}, and {task.open} of its nodes have not ended"
    for index, mark in enumerate(task.marks):
        if mark == Mark.WAITING:
            counts = task.taken[index], task.empty[index], task.broken[index]
            if readiness(plan.need[index], len(plan.parents[index]), *counts) is not Readiness.WAIT:
                return f"node {plan.ids[index]!r} waits for its parents, and does not need to"
    return None
