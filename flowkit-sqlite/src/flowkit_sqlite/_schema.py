"""Tables of the store.

Operators may read the tables; only FlowKit writes them. Times are seconds since 1970. A file may
hold several installations, which the column ``namespace`` separates.

A task has one row in ``tasks``, which changes with every commit and is short. Its column ``tags``
is a list in JSON, and the table ``tags`` is the index of it. The other rows of a task have its
number (``tasks.id``) in the column ``task``: the parts, the labels, and the parts in the archive.
The specification is the part with the empty name. Artifacts do not need a task with their id, so
they have an owner of their own. When a purge has deleted the rows of a task in ``tasks``, ``tags``
and ``artifact_owners``, nothing finds its other rows any more, and they can be deleted in small
steps. Until then its numbers are in the table ``purged``, and no new task or owner gets them. Its
id stays there for an hour longer, for artifacts that arrive late.

A keyed record has one row in ``records``. Workers and dead letters are such records. One that
belongs to a task has the id of the task, and is deleted with it.

A commit of a small change costs a write of a page for each index that it changes, so there are few
indexes.
"""

import sqlite3

TABLES = (
    # ---------------------------------------------------------------- tasks
    """
    CREATE TABLE tasks (
        id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        task_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        op_id TEXT NOT NULL,
        status TEXT NOT NULL,
        created_at REAL NOT NULL,
        pipeline TEXT,
        idempotency_key TEXT,
        wake_at REAL,
        finished_at REAL,
        tags TEXT
    ) STRICT
    """,
    "CREATE UNIQUE INDEX tasks_by_id ON tasks (namespace, task_id)",
    """
    CREATE UNIQUE INDEX tasks_by_key ON tasks (namespace, idempotency_key)
        WHERE idempotency_key IS NOT NULL
    """,
    "CREATE INDEX tasks_by_status ON tasks (namespace, status, created_at, task_id)",
    """
    CREATE INDEX tasks_by_pipeline ON tasks (namespace, pipeline, created_at, task_id)
        WHERE pipeline IS NOT NULL
    """,
    """
    CREATE INDEX tasks_by_wake_up ON tasks (namespace, wake_at, task_id)
        WHERE wake_at IS NOT NULL
    """,
    """
    CREATE INDEX tasks_by_end ON tasks (namespace, finished_at)
        WHERE finished_at IS NOT NULL
    """,
    """
    CREATE TABLE parts (
        task INTEGER NOT NULL,
        name TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (task, name)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE labels (
        task INTEGER NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        namespace TEXT NOT NULL,
        created_at REAL NOT NULL,
        task_id TEXT NOT NULL,
        PRIMARY KEY (task, name)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX labels_by_value ON labels (namespace, name, value, created_at, task_id)",
    """
    CREATE TABLE tags (
        namespace TEXT NOT NULL,
        tag TEXT NOT NULL,
        created_at REAL NOT NULL,
        task_id TEXT NOT NULL,
        task INTEGER NOT NULL,
        PRIMARY KEY (namespace, tag, created_at, task_id)
    ) STRICT, WITHOUT ROWID
    """,
    # ---------------------------------------------------------------- what no longer changes
    """
    CREATE TABLE archive (
        task INTEGER NOT NULL,
        name TEXT NOT NULL,
        rank INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (task, name)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE artifact_owners (
        id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        task_id TEXT NOT NULL,
        UNIQUE (namespace, task_id)
    ) STRICT
    """,
    """
    CREATE TABLE artifacts (
        owner INTEGER NOT NULL,
        node_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        position INTEGER NOT NULL,
        uid TEXT NOT NULL,
        partial INTEGER NOT NULL,
        meta BLOB,
        metrics BLOB NOT NULL,
        created_at REAL NOT NULL,
        PRIMARY KEY (owner, node_id, generation, position),
        UNIQUE (owner, node_id, generation, uid)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX artifacts_by_time
        ON artifacts (owner, created_at, node_id, generation, position)
    """,
    # ---------------------------------------------------------------- keyed records, retention
    """
    CREATE TABLE records (
        namespace TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        revision TEXT NOT NULL,
        data BLOB NOT NULL,
        due_at REAL,
        task_id TEXT,
        PRIMARY KEY (namespace, kind, key)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE INDEX records_by_time ON records (namespace, kind, due_at, key)
        WHERE due_at IS NOT NULL
    """,
    """
    CREATE INDEX records_by_task ON records (namespace, task_id, kind, key)
        WHERE task_id IS NOT NULL
    """,
    # Deleted tasks. Those with rows in the other tables have no emptied_at.
    """
    CREATE TABLE purged (
        task INTEGER PRIMARY KEY,
        owner INTEGER,
        namespace TEXT NOT NULL,
        task_id TEXT,
        emptied_at REAL
    ) STRICT
    """,
    "CREATE INDEX purged_by_owner ON purged (owner)",
    "CREATE INDEX purged_by_time ON purged (emptied_at)",
)


def has_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the tables of the store exist."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'purged'").fetchone()
    return found is not None


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of the store, unless another process has created them."""
    if not has_tables(connection):
        for statement in TABLES:
            connection.execute(statement)
