"""The order of the phases for one stored state of a task, written without the engine."""

from flowkit.task import ENDED, Mark, Task

_NOT_BEGUN = (Mark.HELD, Mark.CANCELLED)


def broken_phase(task: Task) -> str | None:
    """Describe a phase that begins before the one before it has ended, or that never ran; None if
    there is none.
    """
    plan = task.spec.plan
    ends, ids, marks = plan.ends, plan.ids, task.marks[: plan.size]
    if ends is None:
        return None
    main_ended = all(mark in ENDED for mark in marks[: ends.main])
    undone = all(marks[index] in ENDED for index in ends.undos)
    for index in range(ends.main, plan.size):
        if task.terminal and marks[index] not in ENDED:
            return f"the task has ended, and node {ids[index]!r} has not"
        if marks[index] in _NOT_BEGUN:
            continue
        if not main_ended:
            return f"node {ids[index]!r} begins before the main phase has ended"
        if index in ends.final and not undone:
            return f"node {ids[index]!r} of finally begins before the undos have ended"
    return None
