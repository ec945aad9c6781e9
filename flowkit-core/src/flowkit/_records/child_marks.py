"""Marks of the children of maps: parts of a record with 1,024 marks each, so that a commit stores
only those near the children that moved.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._engine import Transition
from flowkit._engine.map_expansion import add_places, set_state
from flowkit.graph._expanded_plan import has_children
from flowkit.task import MapBlock, MapState, MapStream, Task

MARKS_A_PART = 1024


def changed_parts(step: Transition) -> Iterator[int]:
    """Yield the numbers of the parts that a change concerns, which was applied."""
    size = step.task.spec.plan.size
    for index in step.marks:
        if index >= size:
            yield (index - size) // MARKS_A_PART
    for place in step.new_marks:
        first, end = place.start - size, place.stop - size
        yield from range(first // MARKS_A_PART, (end - 1) // MARKS_A_PART + 1)


def encode_marks(task: Task, numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of parts."""
    for number in numbers:
        first = task.spec.plan.size + number * MARKS_A_PART
        yield f"c{number:07d}", to_json(task.marks[first : first + MARKS_A_PART].decode("ascii"))


def encode_blocks(task: Task) -> list[list[Any]]:
    """Return the children of a task's maps as they are stored in its state."""
    current = {block.first for state in task.maps.values() for block in state.blocks}
    return [
        [block.owner, block.size, block.items_a_part, block.tag, block.first in current]
        for block in task.blocks
    ]


def encode_streams(task: Task) -> list[list[Any]]:
    """Return the progress of the maps that read artifacts as it is stored in the task's state."""
    return [[index, *state.stream] for index, state in task.maps.items() if state.stream]


def restore_children(
    task: Task,
    blocks: Iterable[tuple[int, int, int, str, bool]],
    streams: Iterable[tuple[int, int, int, int, int, bool]],
    parts: Mapping[str, bytes],
) -> None:
    """Add the stored children of a task's maps, with their marks.

    Raises:
        ValueError: the marks do not fit the children.
    """
    plan = task.spec.plan
    states = {stream[0]: MapState((), MapStream(*stream[1:])) for stream in streams}
    for index, size, items_a_part, tag, is_current in blocks:
        if not has_children(plan, index):
            raise ValueError("it has children of a node that is neither a map nor sharded")
        block = MapBlock(index, len(task.marks), size, items_a_part, tag)
        state = states.setdefault(index, MapState(())) if is_current else MapState(())
        add_places(task, block, number=sum(one.size for one in state.blocks))
        state.blocks += (block,)
    for index, state in states.items():
        if index >= plan.size or sum(one.size for one in state.blocks) < state.size:
            raise ValueError("its maps have more children than nodes")
        set_state(task, index, state)
    marks = "".join(from_json(parts[name]) for name in sorted(parts) if name[0] == "c")
    if len(marks) != len(task.marks) - plan.size:
        raise ValueError("its marks do not fit its nodes")
    task.marks[plan.size :] = marks.encode("ascii")
