"""Storage of published messages."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence

from flowkit.protocols import Message, Place
from flowkit_sqlite._messages import encode_headers, partition_of
from flowkit_sqlite._topics import Topic

_RESERVE = """
    UPDATE flowkit_partitions SET next_position = next_position + ? WHERE partition_id = ?
    RETURNING next_position
"""


def store_messages(
    db: sqlite3.Connection,
    messages: Sequence[Message],
    topics: Mapping[str, Topic],
    *,
    now: float,
    broadcast_kept: int,
) -> list[Place]:
    """Store messages in their order, and return their places."""
    by_partition: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, message in enumerate(messages):
        partitions = topics[message.topic].partition_ids
        by_partition[message.topic, partition_of(message.key, len(partitions))].append(index)
    places: list[Place] = [(0, 0)] * len(messages)
    for (name, number), indexes in by_partition.items():
        topic = topics[name]
        partition_id = topic.partition_ids[number]
        (end,) = db.execute(_RESERVE, (len(indexes), partition_id)).fetchone()
        for position, index in enumerate(indexes, start=end - len(indexes)):
            places[index] = (number, position)
        db.executemany(
            "INSERT INTO flowkit_messages VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    partition_id,
                    places[index][1],
                    now,
                    messages[index].key,
                    encode_headers(messages[index].headers),
                    messages[index].value,
                )
                for index in indexes
            ],
        )
        if topic.broadcast:
            db.execute(
                "DELETE FROM flowkit_messages WHERE partition_id = ? AND position < ?",
                (partition_id, end - broadcast_kept),
            )
    return places
