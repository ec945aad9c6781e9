"""Children of maps: their number in each status, and errors about ids that no child has."""

from collections import Counter
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from flowkit._engine import Transition
from flowkit._engine.map_expansion import end_waiting_children
from flowkit.errors import TaskNotFound
from flowkit.graph._expanded_plan import (
    child_id,
    has_children,
    is_sharded,
    is_undo,
    node_of,
    split_child_id,
)
from flowkit.task import Task

MOST_COMPARED, MOST_COMPARED_CHARS = 200, 60
"""Ids of nodes that are compared with one that does not exist. Longer ones take much longer."""


def with_maps(task: Task, nodes: Iterable[int]) -> list[int]:
    """Return nodes, and the maps of the children among them: a child that was stopped with its map
    has the reason of the map.
    """
    plan = task.spec.plan
    return list(dict.fromkeys(place for node in nodes for place in (node, node_of(plan, node))))


def marks_of_children(task: Task, index: int, step: Transition | None = None) -> Counter[int]:
    """Return how many children of a map have each mark; after ``step``, if given."""
    state = task.maps.get(index)
    if state is None:
        return Counter()
    counts = Counter[int]()
    for place in state.places():
        marks = task.marks[place.start : place.stop]
        if step is not None:
            for child, mark in step.marks.items():
                if child in place:
                    marks[child - place.start] = mark
            if place in step.unbegun_ended:
                end_waiting_children(marks, [range(len(marks))])
        counts.update(marks)
    return counts


def no_such_node(task: Task, node_id: str) -> TaskNotFound:
    """Return the error for an id that no node of a task has."""
    owner, number = split_child_id(node_id)
    index = task.spec.plan.index.get(owner)
    if number < 0 or index is None or not has_children(task.spec.plan, index):
        return TaskNotFound(
            task.task_id, node_id=node_id, why=_similar(node_id, task.spec.plan.ids)
        )
    state = task.maps.get(index)
    if state is None and is_undo(task.spec.plan, index):
        why = f"{owner!r} has children when the task fails or is cancelled, if any are to be undone"
    elif state is None and is_sharded(task.spec.plan, index):
        why = f"{owner!r} has no shards until it begins"
    elif state is None or not state.size:
        why = f"{owner!r} has no children until its items are known"
    else:
        last = child_id(owner, state.size - 1)
        kind = "shards" if is_sharded(task.spec.plan, index) else "children"
        why = f"the {kind} of {owner!r} are {child_id(owner, 0)!r} to {last!r}"
    return TaskNotFound(task.task_id, node_id=node_id, why=why)


def _similar(node_id: str, known: Collection[str]) -> str:
    """Return a question that names a similar node; empty if there is none."""
    if len(node_id) > MOST_COMPARED_CHARS or len(known) > MOST_COMPARED:
        return ""
    short = [name for name in known if len(name) <= MOST_COMPARED_CHARS]
    near = get_close_matches(node_id, short, n=1)
    return f"did you mean {near[0]!r}?" if near else ""
