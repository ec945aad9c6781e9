"""Workers and coordinators, as clients list them."""

from typing import Any

from flowkit._records.heartbeats import heartbeat_at, is_silent
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.client._session import Session
from flowkit.protocols import utc
from flowkit.task import CoordinatorView, WorkerView


async def list_workers(session: Session) -> list[WorkerView]:
    """Return the workers that have a session, by id."""
    now = session.clock.now()
    return [
        WorkerView(
            roles=sorted(one.roles),
            running=one.running,
            waiting=one.waiting,
            slots=one.slots,
            **_process(one, now),
        )
        for one in await _sessions(session, coordinators=False)
    ]


async def list_coordinators(session: Session) -> list[CoordinatorView]:
    """Return the coordinators that have a session, by id."""
    now = session.clock.now()
    return [
        CoordinatorView(**_process(one, now)) for one in await _sessions(session, coordinators=True)
    ]


async def _sessions(session: Session, *, coordinators: bool) -> list[WorkerSession]:
    found = [one for one in await sessions_of(session.store) if one.is_coordinator is coordinators]
    return sorted(found, key=lambda one: one.worker_id)


def _process(session: WorkerSession, now: float) -> dict[str, Any]:
    """Return what a view says about the process of a session."""
    info = session.info
    return {
        "id": session.worker_id,
        "last_heartbeat": utc(heartbeat_at(session)),
        "silent": is_silent(session, now),
        "version": info.get("version", "unknown"),
        "host": info.get("host", "unknown"),
        "pid": session.pid,
        "started_at": utc(session.started_at),
    }
