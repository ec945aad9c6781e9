"""Items of maps: archived parts with JSON lists, which are read by range."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._engine.map_expansion import Growth
from flowkit.errors import CorruptRecord
from flowkit.graph._expanded_plan import map_of, number_of
from flowkit.protocols import ArchivedPart, Store
from flowkit.task import MapBlock, Task

MOST_ITEMS = 256
"""Items in a part."""
BYTES_A_PART = 64 * 1024
"""Size of a part, if the items are of similar size."""
MOST_CACHED = 8
"""Parts that are cached with a task."""


def items_a_part(count: int, size: int) -> int:
    """Return how many of ``count`` items go in a part. ``size`` is the size of all items."""
    return max(1, min(MOST_ITEMS, BYTES_A_PART * count // max(size, 1)))


def encode_items(items: Sequence[Any], number: int) -> Iterator[bytes]:
    """Yield the parts of the items, with this number of items in each."""
    for start in range(0, len(items), number):
        yield to_json(items[start : start + number])


def tag_of(parts: Sequence[bytes]) -> str:
    """Return a hash of the parts. Two coordinators that evaluate the items of a map at the same
    time may get different ones, so the parts have different names.
    """
    found = blake2b(digest_size=6)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def item_parts(block: MapBlock, parts: Sequence[bytes], rank: int) -> list[ArchivedPart]:
    """Return the parts of a map's items as they are archived."""
    return [
        ArchivedPart(_name(block, place * block.items_a_part), rank, data)
        for place, data in enumerate(parts)
    ]


def grown_parts(task: Task, growth: Growth, rank: int) -> Iterator[ArchivedPart]:
    """Yield the parts of the new items of a map that has grown. Each part has one item."""
    state = task.maps[growth.owner]
    new = chain.from_iterable(state.places(growth.stream.size - len(growth.items)))
    for child, data in zip(new, growth.items, strict=True):
        yield ArchivedPart(_grown_name(task, child), rank, data)


def _grown_name(task: Task, child: int) -> str:
    """Return the name of the part with one item. It is unique to the item: a coordinator whose
    commit is refused may have stored it for a child that is another one in the end.
    """
    plan = task.spec.plan
    owner = map_of(plan, child)
    stream = task.maps[owner].stream
    assert stream is not None
    return f"i{child}x{owner}x{stream.generation}x{number_of(plan, child)}"


async def item_of(store: Store, task: Task, child: int) -> Any:
    """Return the item of a child.

    Raises:
        CorruptRecord: the item is missing or damaged.
    """
    state = task.maps[map_of(task.spec.plan, child)]
    if state.stream is not None:
        place, name = 0, _grown_name(task, child)
    else:
        block = state.blocks[0]
        place = (child - block.first) % block.items_a_part
        name = _name(block, child - block.first - place)
    items = task.items.get(name)
    if items is None:
        data = (await store.read_archive(task.task_id, [name])).get(name)
        items = _decoded(task, name, data)
        while len(task.items) >= MOST_CACHED:
            del task.items[next(iter(task.items))]
        task.items[name] = items
    return items[place]


def _decoded(task: Task, name: str, data: bytes | None) -> list[Any]:
    try:
        items = from_json(data or b"")
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise CorruptRecord(f"part {name} of task {task.task_id!r} is missing or damaged")
    return items


def _name(block: MapBlock, offset: int) -> str:
    return f"i{block.first + offset}x{block.tag}"
