"""Workers, as clients list them."""

from flowkit._records.heartbeats import heartbeat_at, is_silent
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.client._session import Session
from flowkit.protocols import utc
from flowkit.task import WorkerView


async def list_workers(session: Session) -> list[WorkerView]:
    """Return the workers that have a session, by id."""
    now = session.clock.now()
    sessions = await sessions_of(session.store)
    return [
        _view(one, now)
        for one in sorted(sessions, key=lambda one: one.worker_id)
        if not one.is_coordinator
    ]


def _view(session: WorkerSession, now: float) -> WorkerView:
    info = session.info
    return WorkerView(
        id=session.worker_id,
        roles=sorted(session.roles),
        running=_number(info.get("running")),
        slots=_number(info.get("max_concurrency")),
        last_heartbeat=utc(heartbeat_at(session)),
        silent=is_silent(session, now),
        version=info.get("version", "unknown"),
        host=info.get("host", "unknown"),
        pid=_number(info.get("pid")),
        started_at=utc(session.started_at),
    )


def _number(text: str | None) -> int:
    """Return a number of a session; 0 if it has none, as one of a foreign program may."""
    return int(text) if text is not None and text.isdecimal() and text.isascii() else 0
