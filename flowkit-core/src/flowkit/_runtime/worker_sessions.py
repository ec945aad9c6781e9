"""Sessions of workers: how often each is renewed, and which are renewed at all."""

import math
from collections.abc import Sequence

from flowkit.protocols import Clock, Store, WorkerSession

USUAL_INTERVAL_SEC = 3.0
LONGEST_INTERVAL_SEC = 60.0
LONGEST_WATCH_SEC = 10.0
WATCH_PAUSE_SEC = 0.25


def heartbeat_interval_sec(session: WorkerSession) -> float:
    """Return the heartbeat interval from the session's ``info``, capped at one minute; the usual
    one if it is damaged.
    """
    try:
        interval = float(session.info.get("hb_interval_sec", USUAL_INTERVAL_SEC))
    except ValueError:
        return USUAL_INTERVAL_SEC
    return min(interval, LONGEST_INTERVAL_SEC) if 0 < interval < math.inf else USUAL_INTERVAL_SEC


async def is_served(store: Store, role: str, clock: Clock) -> bool:
    """Return whether a living worker has this role: wait for the next heartbeat of one that has,
    for at most 10 s.
    """
    sessions = [session for session in await store.sessions() if role in session.roles]
    live, _ = await watch_heartbeats(store, sessions, clock, enough=1)
    return bool(live)


async def watch_heartbeats(
    store: Store, sessions: Sequence[WorkerSession], clock: Clock, *, enough: int | None = None
) -> tuple[list[WorkerSession], list[WorkerSession]]:
    """Wait for the next heartbeat of these workers, for at most 10 s, and return those that live
    and those that are silent.

    Do not wait for more than ``enough`` of them. A worker that ends its session meanwhile counts as
    living: it has stopped in order.
    """
    silent = {session.worker_id: session for session in sessions}
    began = clock.monotonic()
    patience = min(
        2 * max(map(heartbeat_interval_sec, sessions), default=0.0) + 1, LONGEST_WATCH_SEC
    )
    wanted = len(sessions) if enough is None else min(enough, len(sessions))
    while len(sessions) - len(silent) < wanted and clock.monotonic() - began < patience:
        await clock.sleep(WATCH_PAUSE_SEC)
        now = {session.worker_id: session for session in await store.sessions()}
        silent = {
            name: then
            for name, then in silent.items()
            if name in now and now[name].beat == then.beat
        }
    return [session for session in sessions if session.worker_id not in silent], list(
        silent.values()
    )
