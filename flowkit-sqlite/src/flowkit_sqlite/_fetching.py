"""Reading of messages from the file."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flowkit.protocols import Delivery, Message
from flowkit_sqlite._messages import decode_headers
from flowkit_sqlite._progress import Partition, Progress
from flowkit_sqlite._topics import Topic

MOST_BYTES = 8_000_000
"""Size of the messages after which a read ends."""

_ASSIGNED = """
    SELECT partition_id, topic.name, number, progress_id, epoch, first_position, next_position
    FROM flowkit_progress
    JOIN flowkit_partitions USING (partition_id)
    JOIN flowkit_topics AS topic USING (topic_id)
    WHERE member_id = ?
"""
_ENDS = """
    SELECT partition_id, number, next_position FROM flowkit_partitions
    WHERE topic_id = ? ORDER BY number
"""
_MESSAGES = """
    SELECT position, key, headers, value FROM flowkit_messages AS message
    WHERE partition_id = ? AND position >= ? AND NOT EXISTS (
        SELECT 1 FROM flowkit_acknowledged
        WHERE progress_id = ? AND position = message.position
    )
    ORDER BY position LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Assigned:
    """An assigned partition: its first position, and the position after its last message."""

    partition: Partition
    first: int
    end: int


Assignment = Callable[[sqlite3.Connection], list[Assigned]]
"""Job that reads the current assignment of a subscriber."""


def assignment_of_member(member_id: int) -> Assignment:
    """Return the job that reads the partitions of a member of a group."""

    def read(db: sqlite3.Connection) -> list[Assigned]:
        return [
            Assigned(Partition(*partition), first, end)
            for *partition, first, end in db.execute(_ASSIGNED, (member_id,))
        ]

    return read


def partitions_of(db: sqlite3.Connection, topic: Topic) -> list[Assigned]:
    """Return the partitions of a topic, to read what is published from now on."""
    return [
        Assigned(Partition(partition_id, topic.name, number), end, end)
        for partition_id, number, end in db.execute(_ENDS, (topic.topic_id,))
    ]


@dataclass(slots=True)
class Fetched:
    """An assignment, and messages that follow the cursors of its partitions."""

    assignment: Sequence[Assigned]
    rows: list[tuple[Partition, Sequence[tuple[int, str, str, bytes]]]] = field(
        default_factory=list
    )
    cursors: dict[Partition, int] = field(default_factory=dict)
    """Positions from which the next read continues."""

    @property
    def is_behind(self) -> bool:
        """Whether there are more messages."""
        return any(self.cursors[each.partition] < each.end for each in self.assignment)

    def deliveries(self, progress: Mapping[Partition, Progress]) -> list[Delivery]:
        """Return the messages, each with the progress of its partition as the handle."""
        return [
            Delivery(
                Message(partition.topic, value, key, decode_headers(headers)),
                partition.number,
                position,
                progress[partition],
            )
            for partition, rows in self.rows
            for position, key, headers, value in rows
        ]


def fetch(
    db: sqlite3.Connection, assignment: Assignment, cursors: Mapping[Partition, int], room: int
) -> Fetched:
    """Read the assignment and up to ``room`` messages of its partitions."""
    fetched = Fetched(assignment(db))
    with_news = []
    for each in fetched.assignment:
        cursor = cursors.get(each.partition, each.first)
        fetched.cursors[each.partition] = cursor
        if cursor < each.end:
            with_news.append(each)
    size = 0
    for left, each in zip(range(len(with_news), 0, -1), with_news, strict=True):
        # Each partition gets a part of the room, so that none waits for another's backlog.
        limit = -(-room // left)
        if not limit or size > MOST_BYTES:
            break
        rows, complete = [], True
        for row in db.execute(
            _MESSAGES,
            (
                each.partition.partition_id,
                fetched.cursors[each.partition],
                each.partition.progress_id,
                limit,
            ),
        ):
            rows.append(row)
            size += len(row[3])
            if size > MOST_BYTES or len(rows) == limit:
                complete = False
                break
        fetched.cursors[each.partition] = each.end if complete else rows[-1][0] + 1
        fetched.rows.append((each.partition, rows))
        room -= len(rows)
    return fetched
