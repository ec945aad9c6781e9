"""Expansion of a task by the children of its maps, and the state of maps that is derived."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from flowkit._engine.queue_ranks import queue_rank
from flowkit.graph import NodeSpec, _expanded_plan
from flowkit.graph._expanded_plan import ExpandedPlan, expanded, is_undo, name_children
from flowkit.task import ENDED, IN_FLIGHT, UNUSED_PLACE, MapBlock, MapState, MapStream, Mark, Task


class Growth(NamedTuple):
    """Change of a map that reads artifacts: the artifacts that were read, and new children."""

    owner: int
    stream: MapStream
    items: Sequence[bytes] = ()
    """Items of the new children as they are archived."""


def add_block(task: Task, block: MapBlock) -> None:
    """Add the children of a run of a map to a task."""
    add_places(task, block)
    set_state(task, block.owner, MapState((block,), waiting=block.size, open=block.size))


def add_places(task: Task, block: MapBlock, *, number: int = 0, mark: int = Mark.WAITING) -> None:
    """Add places for children of a map. ``number`` is the number of the first one."""
    plan = task.spec.plan
    if not isinstance(plan, ExpandedPlan):
        plan = expanded(plan)
        task.spec = replace(task.spec, plan=plan)
    _expanded_plan.add_places(plan, block.owner, block.size, number)
    task.blocks.append(block)
    task.marks += b"%c" % mark * block.size


def add_undos(task: Task, block: MapBlock) -> None:
    """Add the undos of the children of a map to a task. There is nothing to undo for those that
    have not finished.
    """
    ends = task.spec.plan.ends
    assert ends is not None
    undone = task.maps[ends.undone_by[block.owner]]
    add_places(task, block, mark=Mark.SKIPPED)
    marks = b"".join(task.marks[place.start : place.stop] for place in undone.places())
    task.marks[block.first : block.end] = marks.translate(_UNDO_MARKS)
    set_state(task, block.owner, task.maps[block.owner])


_UNDO_MARKS = bytes(Mark.WAITING if mark == Mark.FINISHED else Mark.SKIPPED for mark in range(256))
"""Mark of the undo of a child, by the mark of the child."""


def set_state(task: Task, index: int, state: MapState) -> None:
    """Set the state of a map, whose children have the ids of the map from now on."""
    task.maps[index] = state
    plan = task.spec.plan
    if isinstance(plan, ExpandedPlan):
        name_children(plan, index, state.places())


def grow(task: Task, growth: Growth) -> list[range]:
    """Add children of a map that reads artifacts. Return the places whose marks have changed.

    Places are added in blocks of growing size, so that there are few blocks, also if several maps
    grow by turns.
    """
    state = task.maps.get(growth.owner) or MapState((), MapStream(growth.stream.generation))
    before, size, changed = state.size, growth.stream.size, list[range]()
    room = sum(block.size for block in state.blocks)
    if room < size:
        block = MapBlock(growth.owner, len(task.marks), max(size - room, room, LEAST_ROOM), 1, "")
        add_places(task, block, number=room, mark=UNUSED_PLACE)
        state.blocks += (block,)
        changed.append(range(block.first, block.end))
    state.stream = growth.stream
    for place in state.places(before):
        task.marks[place.start : place.stop] = b"%c" % Mark.WAITING * len(place)
        changed.append(place)
    state.waiting += size - before
    state.open += size - before
    set_state(task, growth.owner, state)
    return changed


LEAST_ROOM = 16
"""Least number of places in a block of a map that grows."""


def drop_state(task: Task, index: int) -> None:
    """Drop the state of a map. Its children have no ids any more."""
    plan = task.spec.plan
    if isinstance(plan, ExpandedPlan):
        name_children(plan, index, ())
    del task.maps[index]


def end_waiting_children(marks: bytearray, places: Iterable[range]) -> None:
    """Cancel the children of a map that have not begun."""
    for place in places:
        children = marks[place.start : place.stop]
        marks[place.start : place.stop] = children.replace(
            b"%c" % Mark.WAITING, b"%c" % Mark.CANCELLED
        )


def first_waiting(marks: bytearray, state: MapState) -> int:
    """Return the first child of a map, from its cursor on, that waits for its first start."""
    for place in state.places():
        child = marks.find(Mark.WAITING, max(state.cursor, place.start), place.stop)
        if child >= 0:
            return child
    raise ValueError("no child waits")


def derive_maps(task: Task) -> None:
    """Derive the states of maps, and add their children to the counters of the task."""
    plan = task.spec.plan
    for index, state in task.maps.items():
        node, undoes = plan.nodes[index], is_undo(plan, index)
        state.cursor, state.again, state.queued = 0, [], False
        state.waiting = state.open = state.in_flight = state.asking = 0
        for place in state.places():
            marks = bytes(task.marks[place.start : place.stop])
            state.waiting += marks.count(Mark.WAITING)
            state.open += len(place) - sum(map(marks.count, ENDED))
            state.in_flight += sum(map(marks.count, IN_FLIGHT))
            state.asking += marks.count(Mark.ASKING)
            task.deferred += marks.count(Mark.DEFERRED)
            for found in _READY.finditer(marks):
                child = place.start + found.start()
                if undoes:
                    task.ready.append((-queue_rank(plan, child, task.records.get(child)), child))
                else:
                    state.again.append(child)
        task.open += state.open
        task.in_flight += state.in_flight
        task.asking += state.asking
        if task.marks[index] == Mark.MAPPING and may_start_child(node, state):
            state.queued = True
            task.ready.append((-queue_rank(plan, index, task.records.get(index)), index))


def may_start_child(node: NodeSpec, state: MapState) -> bool:
    """Return whether a child of a map may start, as far as the map limits it."""
    limit = None if node.map is None else node.map.max_parallel
    return bool(state.again or state.waiting) and (limit is None or state.in_flight < limit)


def begun_children(marks: bytearray, state: MapState) -> Iterator[int]:
    """Yield the children of a map that have begun and have not ended."""
    for place in state.places():
        for found in _BEGUN.finditer(marks, place.start, place.stop):
            yield found.start()


def _pattern(*marks: int) -> re.Pattern[bytes]:
    return re.compile(b"[%b]" % bytes(marks))


_READY = _pattern(Mark.READY)
_BEGUN = _pattern(*sorted({*IN_FLIGHT, Mark.READY, Mark.DEFERRED}))
