"""Fan-in: whether a node may start, waits, or can never start."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol

from flowkit._engine.map_expansion import derive_maps
from flowkit._engine.queue_ranks import queue_rank
from flowkit._engine.stop_reasons import KEY_BUSY
from flowkit._engine.tags import derive_tags
from flowkit.graph import Plan, Route
from flowkit.graph._later_phases import LaterPhases
from flowkit.graph._models import ALL, ALL_ENDED
from flowkit.task import ENDED, IN_FLIGHT, KeyClaim, Mark, Phase, Task, TaskSpec, TaskStatus

TAKEN, EMPTY, BROKEN = range(3)
"""Outcome of an edge whose parent has ended: data exists, none was due, or due data is missing."""

Outcomes = tuple[int, int, int]
"""Outcomes of an ended node's edges, by :class:`~flowkit.graph.Route`."""

OUTCOMES: Mapping[int, Outcomes] = {
    # the parent              always  on_success  on_failure
    Mark.FINISHED: (TAKEN, TAKEN, EMPTY),
    Mark.FAILED: (BROKEN, BROKEN, TAKEN),
    Mark.CANCELLED: (BROKEN, BROKEN, EMPTY),
    Mark.SKIPPED: (EMPTY, EMPTY, EMPTY),
    Mark.UPSTREAM_FAILED: (BROKEN, BROKEN, EMPTY),
}
HANDLED_FAILURE: Outcomes = (BROKEN, EMPTY, TAKEN)
"""Outcomes of a failed node with an ``on_failure`` branch: ``on_success`` was not taken."""
OPTIONAL_OUTCOMES: Mapping[int, Outcomes] = {
    # the optional parent     always  on_success  on_failure
    Mark.FAILED: (EMPTY, EMPTY, TAKEN),
    Mark.CANCELLED: (EMPTY, EMPTY, EMPTY),
    Mark.SKIPPED: (EMPTY, EMPTY, EMPTY),
    Mark.UPSTREAM_FAILED: (EMPTY, EMPTY, EMPTY),
}
"""Outcomes of an optional node that has not finished: its data is never due."""

UPSTREAM_SKIPPED = "upstream_skipped"
"""Reason code of a node whose parents ended without data, and none of them owed it any."""
SKIPPED_AS: Mapping[str, int] = {
    "condition_false": Mark.SKIPPED,
    KEY_BUSY: Mark.SKIPPED,
    "signal_timeout": Mark.SKIPPED,
    "approval_timeout": Mark.SKIPPED,
    "resolved": Mark.SKIPPED,
    UPSTREAM_SKIPPED: Mark.SKIPPED,
    "upstream_failed": Mark.UPSTREAM_FAILED,
}
"""The mark of a skipped node, by its reason code."""


class Readiness(Enum):
    """State of a fan-in."""

    WAIT = "wait"
    START = "start"
    NEVER = "never"


def readiness(need: int, parents: int, taken: int, empty: int, broken: int) -> Readiness:
    """Return the state of a fan-in. ``need`` is a value of :attr:`flowkit.graph.Plan.need`.

    A fan-in that has become impossible is NEVER immediately, while other parents still run.
    """
    pending = parents - taken - empty - broken
    if need < 0:
        if broken and need == ALL:
            return Readiness.NEVER
        if pending:
            return Readiness.WAIT
        return Readiness.START if taken or broken or need == ALL_ENDED else Readiness.NEVER
    if taken >= need:
        return Readiness.START
    return Readiness.WAIT if taken + pending >= need else Readiness.NEVER


def edge_outcomes(plan: Plan, index: int, mark: int) -> Outcomes:
    """Return the outcomes of an ended node's edges."""
    if mark != Mark.FINISHED:
        if plan.nodes[index].optional:
            return OPTIONAL_OUTCOMES[mark]
        if mark == Mark.FAILED and handles_failure(plan, index):
            return HANDLED_FAILURE
    return OUTCOMES[mark]


def never_because(broken: int) -> str:
    """Return the reason code of a node whose fan-in has become impossible."""
    return "upstream_failed" if broken else UPSTREAM_SKIPPED


def handles_failure(plan: Plan, index: int) -> bool:
    """Return whether a node has an ``on_failure`` branch, which is taken when it fails."""
    return any(edge.route is Route.ON_FAILURE for edge in plan.children[index])


def fails_task(plan: Plan, index: int) -> bool:
    """Return whether the task fails if the node does: no branch handles it, and the node is neither
    optional nor a child of a map.
    """
    return index < plan.size and not (plan.nodes[index].optional or handles_failure(plan, index))


def path_to_failure(task: Task, index: int) -> list[int]:
    """Return the nodes from a node that was skipped because of a failure, up to the failed or
    cancelled node that was the cause. The path from any other node is that node.
    """
    path = [index]
    while task.marks[path[-1]] == Mark.UPSTREAM_FAILED:
        path.append(broken_parent(task, path[-1]))
    return path


def broken_parent(task: Task, index: int) -> int:
    """Return a parent whose data is missing, of a node with the reason code ``upstream_failed``."""
    plan, marks = task.spec.plan, task.marks
    return next(
        edge.node
        for edge in plan.parents[index]
        if marks[edge.node] in ENDED
        and edge_outcomes(plan, edge.node, marks[edge.node])[edge.route] == BROKEN
    )


class TaskEnd(Protocol):
    """State of a task that decides whether it may end, stored or in transition."""

    @property
    def spec(self) -> TaskSpec: ...
    @property
    def open(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def outcome(self) -> TaskStatus | None: ...


class Placed(Protocol):
    """State of a task that may need a place of a concurrency key, stored or in transition."""

    key: KeyClaim | None

    @property
    def spec(self) -> TaskSpec: ...


def lacks_place(state: Placed) -> bool:
    """Return whether a task has no place of the concurrency key of its graph. Then none of its
    nodes begins.
    """
    return state.spec.plan.key is not None and (state.key is None or not state.key.is_held)


def awaits_output(state: TaskEnd) -> bool:
    """Return whether a task would finish, and its output must be evaluated first."""
    return (
        state.open == 0
        and state.outcome is None
        and state.spec.plan.output is not None
        and not state.failures
    )


def derive(task: Task) -> None:
    """Derive the fields of a task that are not stored: counters, and the queue of ready nodes.
    When its nodes are due is known after the next wake-up.
    """
    plan, marks = task.spec.plan, task.marks
    size = plan.size
    counts = [[0] * size, [0] * size, [0] * size]
    task.open = task.in_flight = task.asking = task.deferred = task.failures = 0
    task.phase = Phase.MAIN if plan.ends is None else phase_of(plan.ends, task.mark)
    task.ready, task.ready_later, task.recalled = [], [], {}
    task.due = None
    for index, mark in enumerate(marks[:size]):
        if mark == Mark.HELD:
            continue
        if mark in ENDED:
            outcomes = edge_outcomes(plan, index, mark)
            for edge in plan.children[index]:
                counts[outcomes[edge.route]][edge.node] += 1
            task.failures += mark == Mark.FAILED and fails_task(plan, index)
            continue
        task.open += 1
        if mark == Mark.DEFERRED:
            task.deferred += 1
        elif mark in IN_FLIGHT:
            task.in_flight += 1
            task.asking += mark == Mark.ASKING
        elif mark == Mark.READY and index not in plan.controls:
            task.ready.append((-queue_rank(plan, index, task.records.get(index)), index))
    task.taken, task.empty, task.broken = counts
    if task.maps:
        derive_maps(task)
    derive_tags(task)
    task.ready.sort()


def phase_of(ends: LaterPhases, mark_of: Callable[[int], int]) -> Phase:
    """Return the last phase that has begun. Phases that were abandoned while nodes of the main one
    were open have not.
    """
    for phase, nodes in ((Phase.FINALLY, ends.final), (Phase.UNDO, ends.undos)):
        if nodes and (mark := mark_of(nodes[0])) != Mark.HELD:
            is_abandoned = mark == Mark.CANCELLED and any(
                mark_of(index) not in ENDED for index in range(ends.main)
            )
            return Phase.MAIN if is_abandoned else phase
    return Phase.MAIN


def contradiction(task: Task) -> str | None:
    """Return a contradiction in a derived task; None if it is consistent. An inconsistent task
    would never make progress.
    """
    plan = task.spec.plan
    if task.terminal != (task.open == 0) and not awaits_output(task):
        return f"the task is {task.status.value}, and {task.open} of its nodes have not ended"
    for index, mark in enumerate(() if lacks_place(task) else task.marks[: plan.size]):
        if mark == Mark.WAITING:
            counts = task.taken[index], task.empty[index], task.broken[index]
            if readiness(plan.need[index], len(plan.parents[index]), *counts) is not Readiness.WAIT:
                return f"node {plan.ids[index]!r} waits, although its fan-in is decided"
    return None
