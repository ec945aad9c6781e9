"""Sessions of workers."""

from typing import Any

from flowkit.protocols import WorkerSession
from flowkit_mongo._context import Context
from flowkit_mongo._database import Change, Document
from flowkit_mongo._document_schemas import SCHEMA_VERSION, SHAPES, TEXT_ID
from flowkit_mongo._documents import mapping, pairs


class Sessions:
    """The collection ``{namespace}_workers``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def renew(self, worker: WorkerSession) -> WorkerSession | None:
        """Store a session and return the one that it replaces; None for a new or damaged one."""
        change = _session_change(worker)
        replaced = await self._context.calls.patiently(
            lambda: self._context.database.replace(self._context.name("workers"), change)
        )
        return None if replaced is None or _is_damaged(replaced) else _session(replaced)

    async def end(self, worker_id: str) -> None:
        """Delete a session."""
        await self._context.delete("workers", {"_id": worker_id})

    async def all(self) -> list[WorkerSession]:
        """Return all sessions.

        A damaged session is left out until its worker renews it.
        """
        # Every id is text, so this condition finds all sessions by the index.
        found = await self._context.find("workers", {"_id": TEXT_ID})
        return [_session(document) for document in found if not _is_damaged(document)]


def _is_damaged(document: Document) -> bool:
    return SHAPES["workers"].fault(document) is not None


def _session_change(session: WorkerSession) -> Change:
    put: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "roles": list(session.roles),
        "beat": session.beat,
        "started_at": session.started_at,
        "info": pairs(session.info),
    }
    # The time is the server's, because the server deletes expired sessions.
    update = {"$set": put, "$currentDate": {"renewed_at": True}}
    return Change({"_id": session.worker_id}, update, upsert=True)


def _session(document: Document) -> WorkerSession:
    return WorkerSession(
        document["_id"],
        tuple(document["roles"]),
        document["beat"],
        document["started_at"],
        mapping(document["info"]),
    )
