"""Retries of tasks with undos and nodes of ``finally``."""

from collections.abc import Collection

from flowkit._engine.map_reruns import drop_map
from flowkit._engine.map_undos import start_undo_of_map
from flowkit._engine.node_ends import drop_letter
from flowkit._engine.phases import hold_later_phases
from flowkit._engine.readiness import fails_task, phase_of
from flowkit._engine.reruns import reset_record
from flowkit._engine.transition import Transition
from flowkit.graph import Plan
from flowkit.graph._expanded_plan import is_map, is_undo, map_of
from flowkit.task import Mark, TaskStatus


def only_later_nodes(plan: Plan, nodes: Collection[int] | None) -> bool:
    """Return whether a retry chooses only nodes of later phases, as that of dead letters does."""
    return plan.ends is not None and bool(nodes) and min(nodes or ()) >= plan.ends.main


def reset_later_phases(draft: Transition, marks: bytearray, again: Collection[int]) -> None:
    """Let the later phases run again at the end of the task. ``again`` are the nodes of the main
    phase that run again.
    """
    ends = draft.task.spec.plan.ends
    assert ends is not None
    hold_later_phases(draft.task.spec.plan, marks)
    for index in (*ends.final, *ends.undos):
        _hold(draft, index)
        record = draft.record(index)
        if ends.undone_by.get(index) in again and (record.after or record.letter):
            draft.edit(index).after = 0
            if record.letter:
                drop_letter(draft, index, draft.edit(index))
    draft.phase = phase_of(ends, draft.mark)


def rerun_later_nodes(draft: Transition, nodes: Collection[int]) -> bytearray:
    """Run those of these nodes that are undos and have run in an ended task again, then
    ``finally``. Return the new marks.

    The nodes of the main phase, and the outcome that they had, stay as they are.
    """
    plan = draft.task.spec.plan
    ends = plan.ends
    assert ends is not None
    undos = [
        index
        for index in nodes
        if is_undo(plan, index) and not is_map(plan, index) and draft.record(index).first_issued_at
    ]
    for index in (*ends.final, *undos):
        _hold(draft, index)
    draft.finished_at = None
    if draft.outcome is TaskStatus.FINISHED:
        draft.error = None
    draft.open = len(undos)
    for index in undos:
        if index >= plan.size:
            _reopen_undo_of_map(draft, map_of(plan, index))
        draft.move(index, Mark.WAITING)
        draft.make_ready(index)
    draft.phase = phase_of(ends, draft.mark)
    marks = bytearray(map(draft.mark, range(plan.size)))
    draft.failures = sum(
        mark == Mark.FAILED and fails_task(plan, index) for index, mark in enumerate(marks)
    )
    return marks


def _reopen_undo_of_map(draft: Transition, index: int) -> None:
    """Let the undo of a map wait for one more child, whose undo runs again. Its generation stays
    the highest one, which the next undos get.
    """
    if draft.mark(index) != Mark.MAPPING:
        record = draft.record(index)
        draft.records[index] = reset_record(record, from_nothing=True, required=False)
        draft.marks[index] = Mark.WAITING
        draft.note(index, "status", "queued", {"retry": True})
        draft.open += 1
        start_undo_of_map(draft, index)
    state = draft.edit_map(index)
    state.waiting += 1
    state.open += 1


def _hold(draft: Transition, index: int) -> None:
    """Reset a node whose phase is about to begin again."""
    record = draft.task.records.get(index)
    if record is not None:
        after = record.after
        draft.records[index] = reset_record(record, from_nothing=True, required=False)
        draft.records[index].after = after
    if index in draft.task.maps:
        drop_map(draft, index)
    draft.marks[index] = Mark.HELD
    draft.note(index, "status", "queued", {"retry": True})
