"""Queries about topics and groups: what is outstanding, and the checks of ``flowkit doctor``."""

import sqlite3
from collections.abc import Iterable

from flowkit.protocols import CheckResult, TopicSpec

_OUTSTANDING = """
    SELECT number, coalesce(first_position, 0), coalesce(
        (
            SELECT min(position) FROM messages AS kept
            WHERE kept.partition_id = partition.partition_id
        ),
        next_position
    ), next_position
    FROM topics AS topic
    JOIN partitions AS partition USING (topic_id)
    LEFT JOIN progress ON progress.partition_id = partition.partition_id
        AND group_id = (SELECT group_id FROM groups WHERE name = ?)
    WHERE topic.name = ?
"""
_KEPT = """
    SELECT count(*), sum(next_position - coalesce(
        (
            SELECT min(position) FROM messages AS kept
            WHERE kept.partition_id = partition.partition_id
        ),
        next_position
    ))
    FROM topics JOIN partitions AS partition USING (topic_id)
    WHERE name = ?
"""


def outstanding(db: sqlite3.Connection, topic: str, group: str) -> dict[int, tuple[int, int]]:
    """Return the first unacknowledged position of a group, and the end, by partition."""
    return {
        number: (max(first, oldest), end)
        for number, first, oldest, end in db.execute(_OUTSTANDING, (group, topic))
    }


def check_topics(db: sqlite3.Connection, topics: Iterable[TopicSpec]) -> list[CheckResult]:
    """Return a result for each topic."""
    return [_check_topic(db, spec.name) for spec in topics]


def _check_topic(db: sqlite3.Connection, name: str) -> CheckResult:
    partitions, kept = db.execute(_KEPT, (name,)).fetchone()
    detail = (
        f"partitions: {partitions}, messages kept: {kept}"
        if partitions
        else "does not exist; the first coordinator or worker that needs it creates it"
    )
    return CheckResult(f"topic {name}", True, detail)
