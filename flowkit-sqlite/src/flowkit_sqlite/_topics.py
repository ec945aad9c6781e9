"""Topics and their partitions."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowkit.errors import BusError
from flowkit.protocols import TopicSpec


@dataclass(frozen=True, slots=True)
class Topic:
    """A stored topic, and the ids of its partitions by number. It never changes."""

    topic_id: int
    name: str
    broadcast: bool
    partition_ids: tuple[int, ...]


def create_topics(db: sqlite3.Connection, specs: Iterable[TopicSpec], partitions: int) -> None:
    """Create the topics that do not exist. A broadcast topic has one partition."""
    for spec in specs:
        row = db.execute(
            "INSERT INTO topics (name, broadcast) VALUES (?, ?)"
            " ON CONFLICT DO NOTHING RETURNING topic_id",
            (spec.name, spec.broadcast),
        ).fetchone()
        if row is not None:
            db.executemany(
                "INSERT INTO partitions (topic_id, number) VALUES (?, ?)",
                [(*row, number) for number in range(1 if spec.broadcast else partitions)],
            )


def find_topic(db: sqlite3.Connection, name: str) -> Topic | None:
    """Return a topic, or None if it does not exist."""
    row = db.execute("SELECT topic_id, broadcast FROM topics WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    topic_id, broadcast = row
    partitions = db.execute(
        "SELECT partition_id FROM partitions WHERE topic_id = ? ORDER BY number",
        (topic_id,),
    )
    return Topic(topic_id, name, bool(broadcast), tuple(each for (each,) in partitions))


def get_topics(
    db: sqlite3.Connection, names: Iterable[str], known: Mapping[str, Topic]
) -> dict[str, Topic]:
    """Return topics by name. Those that are ``known`` are not read.

    Raises:
        BusError: a topic does not exist.
    """
    found: dict[str, Topic] = {}
    for name in names:
        topic = known.get(name) or found.get(name) or find_topic(db, name)
        if topic is None:
            raise BusError(f"topic {name!r} does not exist")
        found[name] = topic
    return found
