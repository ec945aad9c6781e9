"""Sources of nodes: the nodes whose artifacts a node reads, perhaps before they have ended."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from flowkit.graph import Plan
from flowkit.graph._expanded_plan import is_sharded, is_undo, node_of, number_of
from flowkit.task import ENDED, IN_FLIGHT, Mark, Task, TaskSpec


class Marks(Protocol):
    """Marks of a task, stored or in transition."""

    @property
    def spec(self) -> TaskSpec: ...
    def mark(self, index: int) -> int: ...
    def children_of(self, index: int) -> Iterator[int]: ...


def sources_of(task: Task, index: int) -> Sequence[int]:
    """Return the nodes whose artifacts a node may read. The undo of a child of a map reads those of
    the child.
    """
    plan = task.spec.plan
    undone = None if index < plan.size else undone_node(task, index)
    return plan.sources[index] if undone is None else (undone,)


def undone_node(task: Task, index: int) -> int | None:
    """Return the node of an undo, which is a child of a map if the undo is; None for any other
    node.
    """
    plan = task.spec.plan
    if plan.ends is None or not is_undo(plan, index):
        return None
    undone = plan.ends.undone_by[node_of(plan, index)]
    if index < plan.size:
        return undone
    return task.maps[undone].places(number_of(plan, index))[0].start


def sources_progress(state: Marks, index: int) -> bool:
    """Return whether all nodes that a node reads from have ended or are in flight, and so on for
    the nodes that these read from. A node with shards is in flight while one of them is and none
    waits: the place of that one is free for the end of the node.
    """
    plan = state.spec.plan
    ahead, seen = [index], {index}
    while ahead:
        reader = ahead.pop()
        if not _reads(plan, reader):
            continue
        for source in plan.sources[reader]:
            mark = state.mark(source)
            if mark in ENDED or source in seen:
                continue
            if mark not in IN_FLIGHT and not _shards_progress(state, source, mark):
                return False
            seen.add(source)
            ahead.append(source)
    return True


def _shards_progress(state: Marks, index: int, mark: int) -> bool:
    """Return whether a shard of a node is in flight, and all others are, too, or have ended."""
    if mark != Mark.MAPPING or not is_sharded(state.spec.plan, index):
        return False
    is_open = {state.mark(shard) for shard in state.children_of(index)} - ENDED
    return bool(is_open) and is_open <= IN_FLIGHT


def _reads(plan: Plan, index: int) -> bool:
    """Return whether the graph lets a node read the artifacts of other nodes."""
    node = plan.nodes[index]
    return node.io.input_adapter is not None or (
        node.map is None and any(edge.streams for edge in plan.parents[index])
    )
