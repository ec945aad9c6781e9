"""The rules of undos for one stored state of a task, written without the engine."""

from collections.abc import Mapping

from flowkit.graph._later_phases import LaterPhases
from flowkit.task import IN_FLIGHT, Mark, NodeRecord, Task

_RUNNING = IN_FLIGHT | {Mark.DEFERRED}
_DUE = frozenset({Mark.WAITING, Mark.READY})


def broken_undo(
    task: Task, nodes: Mapping[int, NodeRecord], ends: Mapping[int, int], *, before: str = ""
) -> str | None:
    """Describe the first rule of undos that a state breaks; None if it breaks none.

    ``nodes`` are all records of the task so far, and ``ends`` the numbers of the changes with which
    its nodes finished. ``before`` has the marks of the state before this one.
    """
    phases = task.spec.plan.ends
    if phases is None:
        return None
    ids, marks = task.spec.plan.ids, task.marks
    undos = _undos(task, phases)
    running = [undo for undo in undos if marks[undo] in _RUNNING]
    if len(running) > 1:
        return f"the undos {[ids[undo] for undo in running]} run at the same time"
    for undo, undone in undos.items():
        if marks[undo] not in (Mark.HELD, Mark.CANCELLED) and _has_run(nodes, undo):
            if marks[undone] != Mark.FINISHED:
                return f"{ids[undo]!r} runs, and its node did not finish"
            if task.outcome == "finished":
                return f"{ids[undo]!r} runs in a task that finishes"
    for undo in running:
        for other, undone in undos.items():
            if marks[other] in _DUE and ends[undone] > ends[undos[undo]]:
                return f"{ids[undo]!r} runs before {ids[other]!r}"
    return _not_undone(task, phases, undos, before)


def _has_run(nodes: Mapping[int, NodeRecord], index: int) -> bool:
    return index in nodes and nodes[index].first_issued_at > 0


def _undos(task: Task, phases: LaterPhases) -> dict[int, int]:
    """Return the node of each undo: for the undo of a child of a map, that child."""
    found: dict[int, int] = {}
    for undo, undone in phases.undone_by.items():
        if task.spec.plan.nodes[undone].map is None:
            found[undo] = undone
        elif undo in task.maps:
            found |= zip(task.maps[undo].children(), task.maps[undone].children(), strict=True)
    return found


def _not_undone(
    task: Task, phases: LaterPhases, undos: Mapping[int, int], before: str
) -> str | None:
    """Describe a node whose undo was skipped when the main phase of its task ended badly.

    A forced cancel that comes while ``finally`` runs ends also a task that would have finished. If
    it came with the same commit, it has cancelled the nodes of ``finally``.
    """
    ids, marks = task.spec.plan.ids, task.marks
    was_forced = any(marks[index] == Mark.CANCELLED for index in phases.final)
    if task.outcome in (None, "finished") or was_forced:
        return None
    skipped = {
        undo
        for undo in {*phases.undos, *undos}
        if marks[undo] == Mark.SKIPPED
        and task.record(undo).resolution is None
        and before[undo : undo + 1] != chr(Mark.SKIPPED)
    }
    undone = {undos[undo] for undo in skipped & undos.keys()}
    for undo in skipped & phases.undone_by.keys():
        if phases.undone_by[undo] in task.maps:
            undone.update(task.maps[phases.undone_by[undo]].children())
    for index in sorted(undone):
        if marks[index] == Mark.FINISHED:
            return f"node {ids[index]!r} had finished and was not undone"
    return None
