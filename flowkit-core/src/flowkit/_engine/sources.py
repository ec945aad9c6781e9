"""Sources of nodes: the nodes whose artifacts a node reads, perhaps before they have ended."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Protocol

from flowkit.graph import NodeSpec, Plan
from flowkit.graph._expanded_plan import (
    child_id,
    is_sharded,
    is_undo,
    node_of,
    number_of,
    stored_by,
)
from flowkit.graph._models import MAX_AHEAD
from flowkit.graph._node_checks import PULL_ADAPTERS, named_nodes
from flowkit.task import ENDED, IN_FLIGHT, Mark, Task, TaskSpec

MOST_EXPECTED = 200
"""Readers that a command names."""


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


def sources_progress(state: Marks, index: int, in_flight: AbstractSet[int] = IN_FLIGHT) -> bool:
    """Return whether all nodes that a node reads from have ended or are in flight, and so on for
    the nodes that these read from. A node with shards is in flight while one of them is and none
    waits: the place of that one is free for the end of the node. ``in_flight`` are the marks that
    count.
    """
    ahead, seen = [index], {index}
    while ahead:
        for source in open_sources(state, ahead.pop()):
            if source in seen:
                continue
            mark = state.mark(source)
            if mark not in in_flight and not _shards_progress(state, source, mark, in_flight):
                return False
            seen.add(source)
            ahead.append(source)
    return True


def open_sources(state: Marks, index: int) -> Sequence[int]:
    """Return the nodes that a node reads from and that have not ended."""
    plan = state.spec.plan
    if not _reads(plan, index):
        return ()
    return [source for source in plan.sources[index] if state.mark(source) not in ENDED]


def _shards_progress(state: Marks, index: int, mark: int, in_flight: AbstractSet[int]) -> bool:
    """Return whether a shard of a node is in flight, and all others are, too, or have ended."""
    if mark != Mark.MAPPING or not is_sharded(state.spec.plan, index):
        return False
    is_open = {state.mark(shard) for shard in state.children_of(index)} - ENDED
    return bool(is_open) and is_open <= in_flight


def _reads(plan: Plan, index: int) -> bool:
    """Return whether the graph lets a node read the artifacts of other nodes."""
    node = plan.nodes[index]
    return node.io.input_adapter is not None or (
        node.map is None and any(edge.streams for edge in plan.parents[index])
    )


# ---------------------------------------------------------------- readers


def waits_for_batches(state: Marks, index: int) -> bool:
    """Return whether nothing but a first batch is missing for the start of a node that waits: its
    parents that do not stream to it have ended.
    """
    return all(
        edge.streams or state.mark(edge.node) in ENDED for edge in state.spec.plan.parents[index]
    )


def expected_readers(task: Task, index: int) -> Mapping[str, int]:
    """Return the nodes that read the artifacts of a node while it runs, each with the number of
    batches that the node may be ahead of it: those in flight, and those that need only its first
    batch to start. Of a node with shards this is the first shard.
    """
    plan = task.spec.plan
    source = stored_by(plan, index)
    found = (
        edge.node
        for edge in plan.children[source]
        if edge.streams
        and _pulls_from(plan.nodes[edge.node], plan.ids[source])
        and _runs_soon(task, edge.node)
    )
    return {
        _reader_id(plan, reader): plan.nodes[reader].io.max_ahead or MAX_AHEAD
        for reader in islice(found, MOST_EXPECTED)
    }


def _runs_soon(task: Task, index: int) -> bool:
    plan, mark = task.spec.plan, task.mark(index)
    if mark in _RUNS:
        return True
    node = plan.nodes[index]
    return (
        mark in _STARTS
        and plan.max_parallel is None
        and not (node.when or node.key or node.rate_limit)
        and waits_for_batches(task, index)
    )


_RUNS = frozenset({Mark.ISSUED, Mark.RUNNING, Mark.MAPPING})
_STARTS = frozenset({Mark.WAITING, Mark.READY})


def _pulls_from(node: NodeSpec, source: str) -> bool:
    """Return whether a node that streams pulls the artifacts of this parent."""
    adapter = node.io.input_adapter
    if adapter is not None and adapter not in PULL_ADAPTERS:
        return False
    named = [node_id for _, node_id in named_nodes(node)]
    return not named or source in named


def _reader_id(plan: Plan, index: int) -> str:
    """Return the id under which a node sends its position first."""
    return child_id(plan.ids[index], 0) if is_sharded(plan, index) else plan.ids[index]
