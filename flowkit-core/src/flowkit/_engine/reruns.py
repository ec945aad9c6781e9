"""Which nodes a retry runs again."""

from collections.abc import Collection, Iterable
from functools import cache
from itertools import chain

from flowkit._engine.map_undos import undone_children
from flowkit._engine.readiness import (
    BROKEN,
    EMPTY,
    TAKEN,
    Readiness,
    edge_outcomes,
    fails_task,
    path_to_failure,
    readiness,
)
from flowkit.graph._expanded_plan import is_map, node_of
from flowkit.graph._models import ALL
from flowkit.task import KeyClaim, Mark, NodeRecord, Task, TaskStatus


def nodes_to_reset(task: Task, chosen: tuple[int, ...] | None) -> set[int]:
    """The nodes that a retry runs again.

    They are the chosen nodes, or else the failed ones, those that were undone, that with which
    ``task.end`` ended the task badly, and those that were stopped. In a finished task only those
    stopped nodes run again that are needed again. Below all these, the nodes that have not
    finished, and the finished ones that are :func:`is_owed` data. Below a chosen, an undone or a
    finished node that runs again, all nodes. The nodes of later phases are not among them.
    """
    finished_task = task.outcome is TaskStatus.FINISHED
    named = set(chosen or ()) | undone_nodes(task)
    if not finished_task:
        named |= {index for index, record in task.records.items() if record.ended_task}
    failed = chosen is None
    stopped = (
        set()
        if finished_task
        else {
            index
            for index, mark in enumerate(task.marks[: task.spec.plan.size])
            if mark == Mark.CANCELLED
        }
    )
    again = _with_nodes_below(task, named, stopped, failed=failed)
    while needed := _needed_again(task, again):
        stopped |= needed
        again = _with_nodes_below(task, named, stopped, failed=failed)
    ends = task.spec.plan.ends
    return again if ends is None else {index for index in again if index < ends.main}


def blocked_nodes(task: Task, chosen: Iterable[int]) -> dict[int, int]:
    """Return those of the chosen nodes that cannot start again, because a node above stays failed,
    cancelled or skipped, or its branch is not taken, each with such a node. The chosen ones may be
    children of maps. The task must have the records that a retry of these nodes needs.
    """
    plan, nodes = task.spec.plan, tuple(chosen)
    again = nodes_to_reset(task, tuple(node_of(plan, index) for index in nodes))
    found: dict[int, int] = {}
    for index in nodes:
        node = node_of(plan, index)
        if node in again and (above := _blocking_parent(task, node, again)) is not None:
            found[index] = _cause(task, above, again)
    return found


def _cause(task: Task, above: int, again: set[int]) -> int:
    """The first node of those that ended without data over one another, down to this one."""
    found = path_to_failure(task, above)[-1]
    while task.marks[found] == Mark.SKIPPED:
        skipped = (
            edge.node
            for edge in task.spec.plan.parents[found]
            if edge.node not in again and task.marks[edge.node] == Mark.SKIPPED
        )
        higher = next(skipped, None)
        if higher is None:
            break
        found = higher
    return found


def _blocking_parent(task: Task, index: int, again: set[int]) -> int | None:
    """The parent without data that keeps a node from starting, if only these nodes run again."""
    plan, marks = task.spec.plan, task.marks
    kept = [edge for edge in plan.parents[index] if edge.node not in again]
    outcomes = [edge_outcomes(plan, edge.node, marks[edge.node])[edge.route] for edge in kept]
    counts = (outcomes.count(one) for one in (TAKEN, EMPTY, BROKEN))
    never = readiness(plan.need[index], len(plan.parents[index]), *counts) is Readiness.NEVER
    if not never:
        return None
    missed = (
        edge.node
        for edge, outcome in zip(kept, outcomes, strict=True)
        if outcome == BROKEN or (outcome == EMPTY and marks[edge.node] == Mark.FAILED)
    )
    without = (edge.node for edge, outcome in zip(kept, outcomes, strict=True) if outcome == EMPTY)
    return next(chain(missed, without), None)


def undone_nodes(task: Task) -> set[int]:
    """The nodes whose undo has begun, or that of a child: their results are not valid any more."""
    ends = task.spec.plan.ends
    if ends is None:
        return set()
    records = ((index, task.records.get(index)) for index in ends.undos)
    return {
        ends.undone_by[index]
        for index, record in records
        if record is not None and record.first_issued_at and not is_map(task.spec.plan, index)
    } | undone_children(task).keys()


def _with_nodes_below(task: Task, named: set[int], stopped: set[int], *, failed: bool) -> set[int]:
    """The nodes that run again, if the named and stopped ones do, and the ``failed`` ones."""
    plan, marks = task.spec.plan, task.marks
    again, all_below = set[int](), set[int]()
    for index in plan.order:
        mark, finished = marks[index], marks[index] == Mark.FINISHED
        parents = {edge.node for edge in plan.parents[index]}
        wanted = index in named or not parents.isdisjoint(all_below)
        undone = index in stopped or (failed and mark == Mark.FAILED and fails_task(plan, index))
        below = not finished and not parents.isdisjoint(again)
        if wanted or undone or below or (finished and is_owed(task, index, again)):
            again.add(index)
            if wanted or finished:
                all_below.add(index)
    return again


def is_owed(task: Task, index: int, again: Collection[int]) -> bool:
    """Whether a finished node may have run with less than the nodes that run again will give it.

    With ``all`` and ``ended`` its parents owe it their data. With ``any`` and ``count:n`` it had
    all it asked for, unless it pulled: then it read in part what its sources give, and did not ask
    for more if it had its parents stopped.
    """
    plan = task.spec.plan
    waits_for_all = plan.need[index] < 0
    if waits_for_all and any(edge.node in again for edge in plan.parents[index]):
        return True
    wants_more = waits_for_all or plan.nodes[index].on_satisfied != "cancel"
    record = task.records.get(index)
    return (
        wants_more
        and record is not None
        and record.pulled
        and any(source in again for source in plan.sources[index])
    )


def _needed_again(task: Task, again: set[int]) -> set[int]:
    """The stopped nodes whose data is missed by a child that runs again, also over nodes that were
    skipped because of the stop.

    A child misses no data if the parents that keep their results are enough for its fan-in, as any
    are for ``ended``.
    """
    plan, marks = task.spec.plan, task.marks

    @cache
    def misses_data(child: int) -> bool:
        kept = [edge for edge in plan.parents[child] if edge.node not in again]
        taken = sum(
            edge_outcomes(plan, edge.node, marks[edge.node])[edge.route] == TAKEN for edge in kept
        )
        need = plan.need[child]
        return need == ALL or need > taken

    found = set(again)
    for index in reversed(plan.order):
        if marks[index] in _WITHOUT_DATA and any(
            edge.node in found
            and edge_outcomes(plan, index, marks[index])[edge.route] == BROKEN
            and misses_data(edge.node)
            for edge in plan.children[index]
        ):
            found.add(index)
    return {index for index in found - again if marks[index] == Mark.CANCELLED}


def reset_record(record: NodeRecord, *, from_nothing: bool, required: bool) -> NodeRecord:
    """Return the record of a node that runs again.

    ``from_nothing`` starts a new generation, so that its artifacts do not mix with earlier ones.
    """
    return NodeRecord(
        attempt=record.attempt,
        first_attempt=record.attempt
        + 1
        + (record.handovers > 0),  # the number of an attempt that was handed back was used again
        generation=record.generation + from_nothing,
        handovers=record.handovers,
        progress=None if from_nothing else record.progress,
        letter=record.letter,
        required=required,
        child=None if from_nothing else record.child,
        key=_past(record.key),
        rate=_past(record.rate),
        cache=_past(record.cache),
    )


def _past(claim: KeyClaim | None) -> KeyClaim | None:
    """Return a claim of an earlier run. The next one has a rank and a name of its own."""
    return None if claim is None else claim.in_state("over")


_WITHOUT_DATA = frozenset({Mark.CANCELLED, Mark.UPSTREAM_FAILED})
