"""Storage of published messages."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowkit.protocols import Message, Place
from flowkit_sqlite._fetching import Row
from flowkit_sqlite._messages import encode_headers, partition_of
from flowkit_sqlite._topics import Topic

# RETURNING would take several times as long as these two.
_NEXT = "SELECT next_position FROM partitions WHERE partition_id = ?"
_RESERVE = "UPDATE partitions SET next_position = ? WHERE partition_id = ?"
_INSERT = """
    INSERT INTO messages (partition_id, published_at, position, key, headers, value)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_TRIM = "DELETE FROM messages WHERE partition_id = ? AND position < ?"


@dataclass(frozen=True, slots=True)
class Stored:
    """Messages that were stored in a partition, one after another."""

    topic: str
    partition_id: int
    rows: Sequence[Row]


def store_messages(
    db: sqlite3.Connection,
    messages: Sequence[Message],
    topics: Mapping[str, Topic],
    *,
    now: float,
    broadcast_kept: int,
) -> tuple[list[Place], list[Stored]]:
    """Store messages in their order. Return their places, and the news for their topics."""
    by_partition: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        partitions = topics[message.topic].partition_ids
        by_partition[message.topic, partition_of(message.key, len(partitions))].append(index)
    places: list[Place] = [(0, 0)] * len(messages)
    stored = []
    for (name, number), indexes in by_partition.items():
        topic = topics[name]
        partition_id = topic.partition_ids[number]
        (first,) = db.execute(_NEXT, (partition_id,)).fetchone()
        end = first + len(indexes)
        db.execute(_RESERVE, (end, partition_id))
        rows: list[Row] = []
        for position, index in enumerate(indexes, start=first):
            message = messages[index]
            places[index] = (number, position)
            rows.append((position, message.key, encode_headers(message.headers), message.value))
        db.executemany(_INSERT, [(partition_id, now, *row) for row in rows])
        if topic.broadcast:
            db.execute(_TRIM, (partition_id, end - broadcast_kept))
        stored.append(Stored(name, partition_id, rows))
    return places, stored
