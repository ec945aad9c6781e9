"""Tables of the bus."""

import sqlite3

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS topics (
        topic_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        broadcast INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE IF NOT EXISTS partitions (
        partition_id INTEGER PRIMARY KEY,
        topic_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        next_position INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic_id, number)
    ) STRICT
    """,
    """
    CREATE TABLE IF NOT EXISTS messages (
        partition_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        published_at REAL NOT NULL,
        key TEXT NOT NULL,
        headers TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (partition_id, position)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS groups (
        group_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        generation INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    # The generation of a group grows when its partitions are assigned again.
    # A group's progress in a partition. Messages below first_position are acknowledged. The epoch
    # grows when the partition goes to another member.
    """
    CREATE TABLE IF NOT EXISTS progress (
        progress_id INTEGER PRIMARY KEY,
        group_id INTEGER NOT NULL,
        partition_id INTEGER NOT NULL,
        first_position INTEGER NOT NULL,
        member_id INTEGER,
        epoch INTEGER NOT NULL DEFAULT 0,
        UNIQUE (group_id, partition_id)
    ) STRICT
    """,
    "CREATE INDEX IF NOT EXISTS progress_of_member ON progress (member_id)",
    "CREATE INDEX IF NOT EXISTS progress_in_partition ON progress (partition_id)",
    # Acknowledged messages above first_position.
    """
    CREATE TABLE IF NOT EXISTS acknowledged (
        progress_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (progress_id, position)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS members (
        member_id INTEGER PRIMARY KEY,
        group_id INTEGER NOT NULL,
        renewed_at REAL NOT NULL,
        lease_sec REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE IF NOT EXISTS member_topics (
        member_id INTEGER NOT NULL,
        topic_id INTEGER NOT NULL,
        PRIMARY KEY (member_id, topic_id)
    ) STRICT, WITHOUT ROWID
    """,
)


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables that do not exist."""
    for statement in TABLES:
        db.execute(statement)
