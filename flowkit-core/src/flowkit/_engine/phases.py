"""Phases of a task: the main phase, then undos, then the nodes of ``finally``."""

from typing import Protocol

from flowkit._engine.map_undos import begin_undo_of_map
from flowkit._engine.node_ends import stop_everything
from flowkit._engine.node_starts import decide_waiting, issue_ready_nodes
from flowkit._engine.readiness import fails_task, lacks_place, phase_of
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import task_stop_code
from flowkit._engine.transition import Transition
from flowkit.graph import Plan
from flowkit.graph._expanded_plan import is_map
from flowkit.task import Mark, Phase, TaskStatus


class TaskEnd(Protocol):
    """State of a task whose main phase has ended, stored or in transition."""

    outcome: TaskStatus | None
    failures: int

    def mark(self, index: int) -> int: ...


def first_marks(plan: Plan) -> bytearray:
    """Return the marks of the nodes of a new task."""
    marks = bytearray((Mark.WAITING,)) * len(plan.ids)
    if plan.ends is not None:
        hold_later_phases(plan, marks)
    return marks


def hold_later_phases(plan: Plan, marks: bytearray) -> None:
    """Mark the nodes of later phases, which have not begun."""
    assert plan.ends is not None
    marks[plan.ends.main :] = bytes((Mark.HELD,)) * (len(marks) - plan.ends.main)


def run_later_phases(draft: Transition, settings: EngineSettings) -> None:
    """Begin the next phases, until one has a node to run or none is left."""
    if lacks_place(draft):
        # It ends before its first node.
        draft.outcome = draft.outcome or main_outcome(draft)
        abandon_later_phases(draft, task_stop_code(draft), settings)
        return
    while draft.open == 0 and (phase := _next_phase(draft)) is not None:
        draft.outcome = draft.outcome or main_outcome(draft)
        draft.phase = phase
        draft.paused = False
        _BEGIN[phase](draft, settings)
        issue_ready_nodes(draft, settings)
    assert draft.task.spec.plan.ends is not None
    draft.phase = phase_of(draft.task.spec.plan.ends, draft.mark)  # of those that were abandoned


def main_outcome(draft: Transition) -> TaskStatus:
    """Return the outcome of nodes that all ended without being stopped."""
    return TaskStatus.FAILED if draft.failures else TaskStatus.FINISHED


def end_status(plan: Plan, state: TaskEnd) -> TaskStatus | None:
    """Return the status in which a task will end: its outcome, or ``failed`` if it would finish and
    a node of ``finally`` failed.
    """
    if state.outcome is TaskStatus.FINISHED and state.failures and plan.ends is not None:
        for index in plan.ends.final:
            if state.mark(index) == Mark.FAILED and fails_task(plan, index):
                return TaskStatus.FAILED
    return state.outcome


class TaskError(Protocol):
    """Errors of a task, stored or in transition."""

    outcome: TaskStatus | None
    error: str | None
    reason: str | None


def error_of(state: TaskError) -> str | None:
    """Return the error of a task that users see: of a cancelled one, the reason if there is one."""
    if state.outcome is TaskStatus.CANCELLED:
        return state.reason or state.error
    return state.error


def abandon_later_phases(draft: Transition, reason_code: str, settings: EngineSettings) -> None:
    """Cancel the nodes of later phases, also of those that have not begun."""
    ends = draft.task.spec.plan.ends
    if ends is not None:
        for index in (*ends.undos, *ends.final):
            if draft.mark(index) == Mark.HELD:
                _admit(draft, index)
    stop_everything(draft, reason_code, settings)
    if ends is not None:
        draft.phase = phase_of(ends, draft.mark)


def _next_phase(draft: Transition) -> Phase | None:
    """Return the next phase that the graph has and that was not abandoned."""
    ends = draft.task.spec.plan.ends
    assert ends is not None
    for phase, nodes in ((Phase.UNDO, ends.undos), (Phase.FINALLY, ends.final)):
        if phase > draft.phase and nodes and draft.mark(nodes[0]) == Mark.HELD:
            return phase
    return None


def _begin_undo(draft: Transition, settings: EngineSettings) -> None:
    """Queue the undos of finished nodes if the task ends badly, and skip the others."""
    ends = draft.task.spec.plan.ends
    assert ends is not None
    for index in ends.undos:
        _admit(draft, index)
        if draft.outcome is TaskStatus.FINISHED or not _begin_undo_of(draft, index):
            draft.move(index, Mark.SKIPPED, data={"reason_code": "nothing_to_undo"})


def _begin_undo_of(draft: Transition, index: int) -> bool:
    """Queue an undo. Return False if there is nothing to undo."""
    if is_map(draft.task.spec.plan, index):
        return begin_undo_of_map(draft, index)
    if not draft.record(index).after:
        return False
    draft.make_ready(index)
    return True


def _begin_finally(draft: Transition, settings: EngineSettings) -> None:
    ends = draft.task.spec.plan.ends
    assert ends is not None
    for index in ends.final:
        _admit(draft, index)
    for index in ends.final:
        if not draft.task.spec.plan.parents[index]:
            decide_waiting(draft, index, settings)


_BEGIN = {Phase.UNDO: _begin_undo, Phase.FINALLY: _begin_finally}


def _admit(draft: Transition, index: int) -> None:
    """Count a node of a later phase as open."""
    draft.move(index, Mark.WAITING)
    draft.open += 1
