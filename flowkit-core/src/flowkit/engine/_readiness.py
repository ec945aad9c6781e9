"""When a node may start, and when it never will."""

from enum import Enum

from flowkit.graph import Plan, Route
from flowkit.task import ENDED, Mark, Task

TAKEN, EMPTY, BROKEN = range(3)
"""What an edge tells the child when its parent has ended."""


class Readiness(Enum):
    WAIT = "wait"
    START = "start"
    NEVER = "never"


def readiness(need: int, parents: int, taken: int, empty: int, broken: int) -> Readiness:
    """What the fan-in comes to. ``need`` is -1 for ``all``, else how many parents must end well (0 of a root).

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


def edge_outcome(parent_mark: int, route: Route) -> int:
    """What an ended parent's edge tells the child: TAKEN, EMPTY or BROKEN."""
    if parent_mark == Mark.SKIPPED:
        return EMPTY
    if route is Route.ON_FAILURE:
        return TAKEN if parent_mark == Mark.FAILED else EMPTY
    if parent_mark == Mark.FINISHED:
        return TAKEN
    return EMPTY if route is Route.ON_SUCCESS and parent_mark == Mark.FAILED else BROKEN


def handles_failure(plan: Plan, index: int) -> bool:
    """Whether a branch is taken when this node fails for good."""
    return any(edge.route is Route.ON_FAILURE for edge in plan.children[index])


def derive(task: Task) -> None:
    """Work out from what is stored everything that a task keeps at hand: counters, the queue for room, held keys."""
    plan, marks = task.spec.plan, task.marks
    size = len(marks)
    counts = [[0] * size, [0] * size, [0] * size]
    task.open = task.in_flight = task.deferred = task.failures = 0
    task.ready, task.key_holders, task.key_waiters, task.recalled = [], {}, {}, {}
    for index, mark in enumerate(marks):
        if mark in ENDED:
            for edge in plan.children[index]:
                counts[edge_outcome(mark, edge.route)][edge.node] += 1
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
