"""Sessions of workers: heartbeat intervals, and detection of live workers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flowkit.protocols import Clock, Store, WorkerSession

DEFAULT_INTERVAL_SEC = 3.0
MAX_INTERVAL_SEC = 60.0
MAX_WATCH_SEC = 10.0
WATCH_PAUSE_SEC = 0.25


def heartbeat_interval_sec(session: WorkerSession) -> float:
    """Return the heartbeat interval in the session's ``info``, at most a minute.

    Return the default if it is invalid.
    """
    try:
        interval = float(session.info.get("hb_interval_sec", DEFAULT_INTERVAL_SEC))
    except ValueError:
        return DEFAULT_INTERVAL_SEC
    return min(interval, MAX_INTERVAL_SEC) if 0 < interval < math.inf else DEFAULT_INTERVAL_SEC


def process_of(session: WorkerSession) -> str:
    """Return the process and host of a worker."""
    return f"process {session.info.get('pid', '?')} on {session.info.get('host', '?')}"


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """The outcome of a wait for heartbeats."""

    live: list[WorkerSession]
    """Workers that sent a heartbeat, or ended their session."""
    silent: list[WorkerSession]


async def is_served(store: Store, role: str, clock: Clock) -> bool:
    """Return whether a live worker serves this role.

    Wait at most 10 s for the next heartbeat of one that has it.
    """
    sessions = [session for session in await store.sessions() if role in session.roles]
    return bool((await watch_heartbeats(store, sessions, clock, enough=1)).live)


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
        now = {session.worker_id: session for session in await store.sessions()}
        silent = {
            name: then
            for name, then in silent.items()
            if name in now and now[name].beat == then.beat
        }
    live = [session for session in sessions if session.worker_id not in silent]
    return Heartbeats(live, list(silent.values()))
