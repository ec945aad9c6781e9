"""Effects of the end of a node on the nodes below it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from flowkit._engine.effects import TellReaders
from flowkit._engine.node_stops import stop_node
from flowkit._engine.readiness import (
    BROKEN,
    SKIPPED_AS,
    TAKEN,
    Readiness,
    edge_outcomes,
    never_because,
    readiness,
)
from flowkit._engine.ready_nodes import make_ready, may_stream
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit.task import ENDED, IN_FLIGHT, UNBEGUN, Mark


def skip(draft: Transition, index: int, reason_code: str, settings: EngineSettings) -> None:
    """Skip a node, and the nodes below it that cannot start without it."""
    _mark_skipped(draft, index, reason_code)
    pass_on(draft, [index], settings)


def end_cancelled(draft: Transition, index: int, settings: EngineSettings) -> None:
    """End a node whose cancellation is complete."""
    draft.edit(index).finished_at = draft.now
    draft.move(index, Mark.CANCELLED)
    pass_on(draft, [index], settings)


def _mark_skipped(draft: Transition, index: int, reason_code: str) -> None:
    record = draft.edit(index)
    record.reason_code = reason_code
    record.finished_at = draft.now
    draft.move(index, SKIPPED_AS[reason_code], data={"reason_code": reason_code})


def cancel_parents(draft: Transition, satisfied: Sequence[int], settings: EngineSettings) -> None:
    """Stop the parents of satisfied nodes, except those that have ended or that a retry requires.

    The other children of a parent see its end once it has stopped.
    """
    ended: list[int] = []
    for index in satisfied:
        for edge in draft.task.spec.plan.parents[index]:
            mark = draft.mark(edge.node)
            if mark in ENDED or mark == Mark.CANCELLING or draft.record(edge.node).required:
                continue
            stop_node(draft, edge.node, mark, "not_needed", settings)
            if draft.mark(edge.node) in ENDED:
                ended.append(edge.node)
    pass_on(draft, ended, settings)


def pass_on(draft: Transition, ended: Sequence[int], settings: EngineSettings) -> None:
    """Report the end of nodes to their children, and end the children that cannot start any more,
    down the graph.

    A child is decided after all of its parents that end with it, so the order of edges in the
    document makes no difference.
    """
    if draft.outcome is not None:
        return
    blocked: list[tuple[int, int]] = []
    satisfied: list[int] = []
    for index in ended:
        affected = _report_end(draft, index)
        _push(blocked, affected.blocked)
        satisfied += affected.satisfied
    while blocked:
        child = heappop(blocked)[1]
        mark, record = draft.mark(child), draft.record(child)
        if mark in ENDED or mark == Mark.CANCELLING:
            continue
        reason_code = never_because(draft.count(child)[BROKEN])
        if mark in UNBEGUN and record.attempt < record.first_attempt:
            _mark_skipped(draft, child, reason_code)
        else:
            stop_node(draft, child, mark, reason_code, settings)
        if draft.mark(child) in ENDED:
            affected = _report_end(draft, child)
            _push(blocked, affected.blocked)
            satisfied += affected.satisfied
    if satisfied:
        cancel_parents(draft, satisfied, settings)


@dataclass(slots=True)
class _Affected:
    """Children that must be stopped, or that do not need their other parents any more."""

    blocked: list[tuple[int, int]] = field(default_factory=list)
    """Children whose fan-in has become impossible, by their place in the order of the graph."""
    satisfied: list[int] = field(default_factory=list)
    """Running children that do not need the rest of their parents."""


def _push(heap: list[tuple[int, int]], items: Iterable[tuple[int, int]]) -> None:
    for item in items:
        heappush(heap, item)


def _report_end(draft: Transition, index: int) -> _Affected:
    """Count the end of a node for each child, and start the children that may start."""
    plan = draft.task.spec.plan
    outcomes = edge_outcomes(plan, index, draft.mark(index))
    affected = _Affected()
    has_readers = False
    for edge in plan.children[index]:
        child = edge.node
        counts = draft.count(child)
        outcome = outcomes[edge.route]
        counts[outcome] += 1
        child_mark = draft.mark(child)
        if child_mark in ENDED:
            continue
        has_readers = has_readers or (edge.streams and child_mark in IN_FLIGHT)
        verdict = readiness(plan.need[child], len(plan.parents[child]), *counts)
        if verdict is Readiness.NEVER:
            affected.blocked.append((plan.rank[child], child))
        elif child_mark == Mark.WAITING:
            if verdict is Readiness.START or (plan.mixed[child] and may_stream(draft, child)):
                make_ready(draft, child)
        elif (
            outcome == TAKEN
            and counts[TAKEN] == plan.need[child]
            and child_mark in IN_FLIGHT
            and plan.nodes[child].on_satisfied == "cancel"
        ):
            affected.satisfied.append(child)
    if has_readers:
        draft.effects.append(TellReaders(index, draft.record(index).generation))
    return affected
