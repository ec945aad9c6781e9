"""Storage of acknowledgements, and deletion of messages that no group needs any more."""

import sqlite3
from collections.abc import Iterable

from flowkit_sqlite._progress import Change, Partition

_ADVANCE = """
    UPDATE progress SET first_position = max(first_position, ?)
    WHERE progress_id = ? AND epoch = ?
"""
_TRIM = """
    DELETE FROM messages WHERE partition_id = ? AND position < (
        SELECT min(first_position) FROM progress WHERE partition_id = ?
    ) AND NOT (
        SELECT broadcast FROM topics JOIN partitions USING (topic_id)
        WHERE partition_id = ?
    )
"""
_OLDEST = "SELECT published_at FROM messages WHERE partition_id = ? ORDER BY position LIMIT 1"
_OWNED = "SELECT 1 FROM progress WHERE progress_id = ? AND epoch = ?"
_EXPIRE = """
    DELETE FROM messages WHERE partition_id = ? AND position <= (
        SELECT max(position) FROM (
            SELECT position, published_at FROM messages
            WHERE partition_id = ? ORDER BY position LIMIT ?
        ) WHERE published_at < ?
    )
"""
MOST_EXPIRED = 1_000
"""Most messages of a partition that are deleted in one step because of their age."""


def store_changes(db: sqlite3.Connection, changes: Iterable[Change]) -> list[Change]:
    """Store acknowledgements, and return those that were stored.

    The others belong to partitions that went to another member.
    """
    return [change for change in changes if _store(db, change)]


def _store(db: sqlite3.Connection, change: Change) -> bool:
    partition = change.progress.partition
    progress_id = partition.progress_id
    if not db.execute(_ADVANCE, (change.first, progress_id, partition.epoch)).rowcount:
        return False
    if change.above:
        db.executemany(
            "INSERT INTO acknowledged VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(progress_id, position) for position in change.above],
        )
    if change.first > change.progress.stored_first:
        db.execute(
            "DELETE FROM acknowledged WHERE progress_id = ? AND position < ?",
            (progress_id, change.first),
        )
        # Subscribers without a group may not have read the messages of a broadcast topic.
        db.execute(_TRIM, (partition.partition_id,) * 3)
    return True


def is_owned(db: sqlite3.Connection, partition: Partition) -> bool:
    """Return whether a partition did not go to another member since it was assigned."""
    return not partition.progress_id or bool(
        db.execute(_OWNED, (partition.progress_id, partition.epoch)).fetchone()
    )


def delete_expired(db: sqlite3.Connection, before: float) -> None:
    """Delete the oldest messages of each partition that were published before a time."""
    for (partition_id,) in db.execute("SELECT partition_id FROM partitions").fetchall():
        oldest = db.execute(_OLDEST, (partition_id,)).fetchone()
        if oldest is not None and oldest[0] < before:
            db.execute(_EXPIRE, (partition_id, partition_id, MOST_EXPIRED, before))
