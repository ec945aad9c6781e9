"""Heartbeats of workers and coordinators: their intervals, and detection of live processes."""

import math
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flowkit._json.limits import is_moment
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.protocols import Clock, Store

DEFAULT_INTERVAL_SEC = 3.0
MAX_INTERVAL_SEC = 60.0
LATE_SEC = 1.0
"""Tolerance for a heartbeat that is late."""
MAX_WATCH_SEC = 10.0
WATCH_PAUSE_SEC = 0.25
MOST_NAMES = 3
ZOMBIE = "Z"
"""State in ``/proc`` of a process that has ended, and for which no other process has waited."""


def process_info(hb_interval_sec: float) -> dict[str, str]:
    """Return the part of a session's ``info`` that identifies this process."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "version": _version(),
        "hb_interval_sec": str(hb_interval_sec),
    }


@cache
def _version() -> str:
    try:
        return version("flowkit-core")
    except PackageNotFoundError:
        return "unknown"


def heartbeat_interval_sec(session: WorkerSession) -> float:
    """Return the heartbeat interval in the session's ``info``, at most a minute."""
    return min(_interval_sec(session), MAX_INTERVAL_SEC)


def _interval_sec(session: WorkerSession) -> float:
    """Return the heartbeat interval in the session's ``info``, or the default if it is invalid."""
    try:
        interval = float(session.info.get("hb_interval_sec", DEFAULT_INTERVAL_SEC))
    except ValueError:
        return DEFAULT_INTERVAL_SEC
    return interval if 0 < interval < math.inf else DEFAULT_INTERVAL_SEC


def process_of(session: WorkerSession) -> str:
    """Return the process and host of a worker."""
    return f"process {session.info.get('pid', '?')} on {session.info.get('host', '?')}"


def process_is_gone(session: WorkerSession) -> bool:
    """Return whether the process of a worker of this machine has ended."""
    if os.name != "posix" or session.info.get("host") != socket.gethostname():
        return False
    try:
        pid = int(session.info["pid"])
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    # In a container, the first process may not wait for its children.
    return status.rpartition(")")[2].split()[0] == ZOMBIE


# ---------------------------------------------------------------- last heartbeats


def heartbeat_at(session: WorkerSession) -> float:
    """Return the time of the last heartbeat, by the clock of the store."""
    try:
        at = float(session.info["renewed_at"])
    except (KeyError, ValueError):
        return session.started_at
    return at if is_moment(at) else session.started_at


def silence_sec(session: WorkerSession, now: float) -> float:
    """Return the time since the last heartbeat."""
    return now - heartbeat_at(session)


def is_silent(session: WorkerSession, now: float) -> bool:
    """Return whether heartbeats are missing: two, or one of a process that is known to have ended.

    This is for people. A wrong clock can make a live process silent for a moment, so nothing is
    changed because of it.
    """
    missing = 1 if process_is_gone(session) else 2
    return silence_sec(session, now) > missing * _interval_sec(session) + LATE_SEC


def why_unserved(sessions: Collection[WorkerSession], role: str, now: float) -> str | None:
    """Return a clause that says why no live worker serves this role, or None if one does."""
    serving = [session for session in sessions if role in session.roles]
    silent = [session for session in serving if is_silent(session, now)]
    return None if len(silent) < len(serving) else unserved(role, silent)


def unserved(role: str, silent: Collection[WorkerSession]) -> str:
    """Return a clause that names the silent workers with this role, or says that there is none."""
    names = [session.worker_id for session in silent if role in session.roles]
    if not names:
        return f"no live worker serves the role {role!r}"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"no heartbeat of {', '.join(names[:MOST_NAMES])}{more}, which"
        f" serve{'s' if len(names) == 1 else ''} the role {role!r}: a handler blocks the event"
        " loop, or the process has ended"
    )


def slots_in_use(sessions: Collection[WorkerSession], role: str, now: float) -> str:
    """Return how many slots of each live worker with this role were in use at its last
    heartbeat, such as ``'ada' 4 of 4``, those with most free slots first. Empty if there is none.
    """
    serving = [one for one in sessions if role in one.roles and not is_silent(one, now)]
    serving.sort(key=lambda one: (one.running - one.slots, one.worker_id))
    shown = [f"{one.worker_id!r} {one.running} of {one.slots}" for one in serving[:MOST_NAMES]]
    more = f" and {len(serving) - MOST_NAMES} more" if len(serving) > MOST_NAMES else ""
    return f"{', '.join(shown)}{more}"


# ---------------------------------------------------------------- next heartbeats


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """The outcome of a wait for heartbeats."""

    live: list[WorkerSession]
    """Workers that sent a heartbeat, or ended their session."""
    silent: list[WorkerSession]


async def watch_heartbeats(
    store: Store, sessions: Sequence[WorkerSession], clock: Clock, *, enough: int | None = None
) -> Heartbeats:
    """Wait at most 10 s for heartbeats of these workers.

    Return as soon as ``enough`` of them are live. A worker that ends its session meanwhile counts
    as live: it was stopped normally.
    """
    silent = {session.worker_id: session for session in sessions}
    began = clock.monotonic()
    timeout_sec = min(
        2 * max(map(heartbeat_interval_sec, sessions), default=0.0) + 1, MAX_WATCH_SEC
    )
    wanted = len(sessions) if enough is None else min(enough, len(sessions))
    while len(sessions) - len(silent) < wanted and clock.monotonic() - began < timeout_sec:
        await clock.sleep(WATCH_PAUSE_SEC)
        now = {session.worker_id: session for session in await sessions_of(store)}
        silent = {
            name: then
            for name, then in silent.items()
            if name in now and now[name].beat == then.beat
        }
    live = [session for session in sessions if session.worker_id not in silent]
    return Heartbeats(live, list(silent.values()))
