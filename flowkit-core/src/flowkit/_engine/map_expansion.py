"""Expansion of a task by the children of its maps, and the state of maps that is derived."""

import re
from collections.abc import Iterator
from dataclasses import replace

from flowkit.graph import NodeSpec
from flowkit.graph._expanded_plan import ExpandedPlan, add_children, drop_children, expanded
from flowkit.task import ENDED, IN_FLIGHT, MapBlock, MapState, Mark, Task


def add_block(task: Task, block: MapBlock) -> None:
    """Add the children of a run of a map to a task."""
    plan = task.spec.plan
    if not isinstance(plan, ExpandedPlan):
        plan = expanded(plan)
        task.spec = replace(task.spec, plan=plan)
    add_children(plan, block.owner, block.size)
    task.blocks.append(block)
    task.marks += b"%c" % Mark.WAITING * block.size
    task.maps[block.owner] = new_state(block)


def drop_block(task: Task, index: int) -> None:
    """Drop the current children of a map. They keep their places, and have no ids any more."""
    plan = task.spec.plan
    assert isinstance(plan, ExpandedPlan)
    drop_children(plan, index)
    del task.maps[index]


def new_state(block: MapBlock) -> MapState:
    """Return the state of a map of which no child has begun."""
    return MapState(block, cursor=block.first, waiting=block.size, open=block.size)


def end_waiting_children(task: Task, block: MapBlock) -> None:
    """Cancel the children of a map that have not begun."""
    children = task.marks[block.first : block.end]
    task.marks[block.first : block.end] = children.replace(
        b"%c" % Mark.WAITING, b"%c" % Mark.CANCELLED
    )


def derive_maps(task: Task) -> None:
    """Derive the states of maps, and add their children to the counters of the task."""
    plan = task.spec.plan
    for index, state in task.maps.items():
        block, node = state.block, plan.nodes[index]
        state.cursor, state.again, state.queued = block.first, [], False
        marks = bytes(task.marks[block.first : block.end])
        state.waiting = marks.count(Mark.WAITING)
        state.open = block.size - sum(map(marks.count, ENDED))
        state.in_flight = sum(map(marks.count, IN_FLIGHT))
        task.open += state.open
        task.in_flight += state.in_flight
        task.deferred += marks.count(Mark.DEFERRED)
        for found in _READY.finditer(marks):
            state.again.append(block.first + found.start())
        if node.concurrency_key is not None:
            for found in _IN_FLIGHT.finditer(marks):
                task.key_holders[node.concurrency_key] = block.first + found.start()
        if task.marks[index] == Mark.MAPPING and may_start_child(node, state):
            state.queued = True
            task.ready.append((-node.priority, index))


def may_start_child(node: NodeSpec, state: MapState) -> bool:
    """Return whether a child of a map may start, as far as the map limits it."""
    limit = None if node.map is None else node.map.max_parallel
    return bool(state.again or state.waiting) and (limit is None or state.in_flight < limit)


def begun_children(marks: bytearray, block: MapBlock) -> Iterator[int]:
    """Yield the children of a map that have begun and have not ended."""
    for found in _BEGUN.finditer(marks, block.first, block.end):
        yield found.start()


def _pattern(*marks: int) -> re.Pattern[bytes]:
    return re.compile(b"[%b]" % bytes(marks))


_READY = _pattern(Mark.READY)
_IN_FLIGHT = _pattern(*sorted(IN_FLIGHT))
_BEGUN = _pattern(*sorted({*IN_FLIGHT, Mark.READY, Mark.DEFERRED}))
