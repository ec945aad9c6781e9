"""Sessions of workers."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from flowkit.protocols import WorkerSession
from flowkit_sqlite._column_forms import NAMES, fault
from flowkit_sqlite._context import Context

SELECT = f"SELECT {NAMES['workers']} FROM workers WHERE namespace = ?"
SELECT_ONE = f"{SELECT} AND worker_id = ?"
REPLACE = """
    REPLACE INTO workers (namespace, worker_id, roles, beat, started_at, info)
    VALUES (?, ?, ?, ?, ?, ?)
"""
DELETE = "DELETE FROM workers WHERE namespace = ? AND worker_id = ?"


class Sessions:
    """The sessions of a namespace's workers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def renew(self, worker: WorkerSession) -> WorkerSession | None:
        """Store a session and return the one that it replaces; None for a new or damaged one."""
        key = (self._context.namespace, worker.worker_id)
        roles, info = json.dumps(list(worker.roles)), json.dumps(dict(worker.info))
        values = (*key, roles, worker.beat, worker.started_at, info)

        def job(connection: sqlite3.Connection) -> Any:
            replaced = connection.execute(SELECT_ONE, key).fetchone()
            connection.execute(REPLACE, values)
            return replaced

        row = await self._context.write(job, brief=True)
        return None if row is None or _is_damaged(row) else _session(row)

    async def end(self, worker_id: str) -> None:
        """Delete a session."""
        key = (self._context.namespace, worker_id)
        await self._context.write(
            lambda connection: connection.execute(DELETE, key).rowcount, brief=True
        )

    async def all(self) -> list[WorkerSession]:
        """Return all sessions.

        A damaged session is left out until its worker renews it.
        """
        namespace = (self._context.namespace,)
        rows = await self._context.read(
            lambda connection: connection.execute(SELECT, namespace).fetchall(), brief=True
        )
        return [_session(row) for row in rows if not _is_damaged(row)]


def _is_damaged(row: Sequence[Any]) -> bool:
    return fault("workers", row) is not None


def _session(row: Sequence[Any]) -> WorkerSession:
    worker_id, roles, beat, started_at, info = row
    return WorkerSession(worker_id, tuple(json.loads(roles)), beat, started_at, json.loads(info))
