"""Packs: archived parts with the records of several nodes.

Pack ``p3`` has the records of the nodes with the indexes from 96 to 127, one a line. The state of a
task says which nodes are in their packs. A node leaves its pack when its record changes: the record
is a part of its own again. A pack is replaced only by one with all of its nodes, so that a reader
with an older state of the task finds each record.
"""

import re
from collections.abc import Iterable, Mapping

from flowkit.task import Task

PACK_NODES = 32
MAX_PACK_BYTES = 64 * 1024
"""Larger records are archived one by one."""
_PACKED = re.compile(b"\x01+")


def pack_part(index: int) -> str:
    """Return the name of the pack of a node."""
    return f"p{index // PACK_NODES}"


def nodes_of_pack(index: int) -> range:
    """Return the nodes that a pack has, given one of them."""
    first = index - index % PACK_NODES
    return range(first, first + PACK_NODES)


def encode_pack(parts: Mapping[int, bytes]) -> bytes:
    """Return the pack of these parts of nodes."""
    return b"\n".join(b"%d %b" % part for part in parts.items())


def decode_pack(data: bytes) -> dict[int, bytes]:
    """Return the parts of the nodes in a pack.

    Raises:
        ValueError: the data is no pack.
    """
    lines = (line.partition(b" ") for line in data.split(b"\n"))
    return {int(index): part for index, _, part in lines}


def add_to_pack(task: Task, nodes: range) -> None:
    """Record that the records of these nodes are in their pack."""
    task.packed.extend(bytes(max(nodes.stop - len(task.packed), 0)))
    task.packed[nodes.start : nodes.stop] = b"\1" * len(nodes)


def take_from_packs(task: Task, nodes: Iterable[int]) -> None:
    """Record that the records of these nodes are not in their packs any more."""
    for index in nodes:
        if task.is_packed(index):
            task.packed[index] = 0


def encode_packed(task: Task) -> list[tuple[int, int]]:
    """Return the first and the last node of each row of nodes that are in their packs."""
    return [(found.start(), found.end() - 1) for found in _PACKED.finditer(task.packed)]


def restore_packed(task: Task, rows: Iterable[tuple[int, int]]) -> None:
    """Restore what :func:`encode_packed` returned.

    Raises:
        ValueError: the rows do not fit the nodes.
    """
    for first, last in rows:
        if not len(task.packed) <= first <= last < len(task.marks):
            raise ValueError("its packs do not fit its nodes")
        add_to_pack(task, range(first, last + 1))
