"""Due times: when each node of a task is to be examined next, so that a wake-up examines only the
nodes that are due.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping
from math import inf

from flowkit.task import DueTimes, Task

REBUILT_ABOVE = 32
"""Changes above which all times are sorted again, which then is faster."""


def due_nodes(task: Task, now: float) -> Collection[int]:
    """Return the nodes that are due; all nodes with records if the times are not known."""
    if task.due is None:
        return task.records
    in_order = task.due.in_order
    return [index for _, index in in_order[: bisect_left(in_order, (now, inf))]]


def first_due(times: DueTimes | None, changes: Mapping[int, float | None]) -> float | None:
    """Return the earliest time after these changes are made, or None."""
    found = min((at for at in changes.values() if at is not None), default=None)
    for at, index in () if times is None else times.in_order:
        if found is not None and at >= found:
            break
        if index not in changes:
            return at
    return found


def change_times(times: DueTimes, changes: Mapping[int, float | None]) -> None:
    """Set the times of nodes. None removes a node."""
    of_node, in_order = times.of_node, times.in_order
    rebuilt = len(changes) > REBUILT_ABOVE
    for index, at in changes.items():
        before = of_node.pop(index, None)
        if at is not None:
            of_node[index] = at
        if rebuilt or at == before:
            continue
        if before is not None:
            del in_order[bisect_left(in_order, (before, index))]
        if at is not None:
            insort(in_order, (at, index))
    if rebuilt:
        times.in_order = sorted((at, index) for index, at in of_node.items())
