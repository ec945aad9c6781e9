"""Marks of the children of maps: parts of a record with 1,024 marks each, so that a commit stores
only those near the children that moved.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._engine import Transition
from flowkit._engine.map_expansion import add_block, drop_block
from flowkit.task import MapBlock, Task

MARKS_A_PART = 1024


def changed_parts(step: Transition) -> Iterator[int]:
    """Yield the numbers of the parts that a change concerns."""
    size = step.task.spec.plan.size
    for index in step.marks:
        if index >= size:
            yield (index - size) // MARKS_A_PART
    for block in [*step.unbegun_ended, *([step.opened[0]] if step.opened else ())]:
        first, end = block.first - size, block.end - size
        yield from range(first // MARKS_A_PART, (end - 1) // MARKS_A_PART + 1)


def encode_marks(task: Task, numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of parts."""
    for number in numbers:
        first = task.spec.plan.size + number * MARKS_A_PART
        yield f"c{number:07d}", to_json(task.marks[first : first + MARKS_A_PART].decode("ascii"))


def encode_blocks(task: Task) -> list[list[Any]]:
    """Return the children of a task's maps as they are stored in its state."""
    current = {state.block.first for state in task.maps.values()}
    return [
        [block.owner, block.size, block.items_a_part, block.tag, block.first in current]
        for block in task.blocks
    ]


def restore_children(
    task: Task, blocks: Iterable[tuple[int, int, int, str, bool]], parts: Mapping[str, bytes]
) -> None:
    """Add the stored children of a task's maps, with their marks.

    Raises:
        ValueError: the marks do not fit the children.
    """
    plan = task.spec.plan
    for index, size, number, tag, is_current in blocks:
        if index >= plan.size or plan.nodes[index].map is None:
            raise ValueError("it has children of a node that is not a map")
        block = MapBlock(index, len(task.marks), size, number, tag)
        add_block(task, block)
        if not is_current:
            drop_block(task, index)
    marks = "".join(from_json(parts[name]) for name in sorted(parts) if name[0] == "c")
    if len(marks) != len(task.marks) - plan.size:
        raise ValueError("its marks do not fit its nodes")
    task.marks[plan.size :] = marks.encode("ascii")
