"""Reading of messages from the file."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flowkit_sqlite._progress import Partition
from flowkit_sqlite._topics import Topic

Row = tuple[int, str, str, bytes]
"""Position, key, encoded headers and value of a message."""
MOST_BYTES = 1_000_000
"""Size of the messages after which a read ends."""

_GENERATION = "SELECT generation FROM groups WHERE name = ?"
_ASSIGNED = """
    SELECT partition_id, topic.name, number, progress_id, epoch, first_position
    FROM progress
    JOIN partitions USING (partition_id)
    JOIN topics AS topic USING (topic_id)
    WHERE member_id = ?
"""
_ENDS = "SELECT partition_id, next_position FROM partitions WHERE topic_id = ?"
_LOCATED = """
    SELECT partition_id, number, next_position FROM partitions WHERE topic_id = ?
"""
_MESSAGES = """
    SELECT position, key, headers, value FROM messages AS message
    WHERE partition_id = ? AND position >= ? AND NOT EXISTS (
        SELECT 1 FROM acknowledged
        WHERE progress_id = ? AND position = message.position
    )
    ORDER BY position LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Partitions of a subscriber, each with the first position to read.

    ``generation`` changes when the assignment changes.
    """

    generation: int
    firsts: Mapping[Partition, int]


NOT_ASSIGNED = Assignment(-1, {})


class Source(Protocol):
    """The partitions that a subscriber reads."""

    @property
    def topics(self) -> Sequence[Topic]: ...

    def assignment(self, db: sqlite3.Connection, known: Assignment) -> Assignment:
        """Return the current assignment, which is ``known`` if it has not changed."""


@dataclass(frozen=True, slots=True)
class Share:
    """Source of a member of a group: its share of the partitions."""

    topics: Sequence[Topic]
    group: str
    member_id: int

    def assignment(self, db: sqlite3.Connection, known: Assignment) -> Assignment:
        (generation,) = db.execute(_GENERATION, (self.group,)).fetchone()
        if generation == known.generation:
            return known
        found = db.execute(_ASSIGNED, (self.member_id,))
        return Assignment(generation, {Partition(*rest): first for *rest, first in found})


@dataclass(frozen=True, slots=True)
class Everything:
    """Source of a subscriber without a group: all partitions, from their ends at its start."""

    topics: Sequence[Topic]

    def assignment(self, db: sqlite3.Connection, known: Assignment) -> Assignment:
        if known is not NOT_ASSIGNED:
            return known
        return Assignment(
            0,
            {
                Partition(partition_id, topic.name, number): end
                for topic in self.topics
                for partition_id, number, end in db.execute(_LOCATED, (topic.topic_id,))
            },
        )


@dataclass(slots=True)
class Fetched:
    """An assignment, and the messages that follow the cursors of its partitions."""

    assignment: Assignment
    rows: list[tuple[Partition, list[Row]]] = field(default_factory=list)
    cursors: dict[Partition, int] = field(default_factory=dict)
    """Positions from which the next read continues, of the partitions with more messages."""
    is_behind: bool = False
    """Whether there are messages after those that were read."""


def fetch(
    db: sqlite3.Connection,
    source: Source,
    known: Assignment,
    cursors: Sequence[tuple[Partition, int]],
    room: int,
) -> Fetched:
    """Read the assignment and up to ``room`` messages of its partitions.

    ``cursors`` are the positions from which to read the partitions of the ``known`` assignment.
    """
    fetched = Fetched(source.assignment(db, known))
    ends = {
        partition_id: end
        for topic in source.topics
        for partition_id, end in db.execute(_ENDS, (topic.topic_id,))
    }
    if fetched.assignment is not known:
        before = dict(cursors)
        firsts = fetched.assignment.firsts.items()
        cursors = [(partition, before.get(partition, first)) for partition, first in firsts]
    waiting = [
        (partition, cursor, ends[partition.partition_id])
        for partition, cursor in cursors
        if cursor < ends[partition.partition_id]
    ]
    size = 0
    for left, (partition, cursor, end) in zip(range(len(waiting), 0, -1), waiting, strict=True):
        # Each partition gets a part of the room, so that none waits for another's backlog.
        limit = -(-room // left)
        if not limit or size > MOST_BYTES:
            fetched.is_behind = True
            break
        rows: list[Row] = []
        for row in db.execute(
            _MESSAGES, (partition.partition_id, cursor, partition.progress_id, limit)
        ):
            rows.append(row)
            size += len(row[3])
            if size > MOST_BYTES:
                break
        is_cut = size > MOST_BYTES or len(rows) == limit
        fetched.cursors[partition] = rows[-1][0] + 1 if is_cut else end
        fetched.is_behind |= fetched.cursors[partition] < end
        fetched.rows.append((partition, rows))
        room -= len(rows)
    return fetched
