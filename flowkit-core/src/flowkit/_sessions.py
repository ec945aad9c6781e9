"""What a worker's session says of its process."""

from flowkit.protocols import WorkerSession

USUAL_INTERVAL_SEC = 3.0
LONGEST_INTERVAL_SEC = 60.0


def heartbeat_interval_sec(session: WorkerSession) -> float:
    """How often a worker renews its session, as its ``info`` says: at most a minute, whatever it says."""
    try:
        interval = float(session.info.get("hb_interval_sec", USUAL_INTERVAL_SEC))
    except ValueError:
        return USUAL_INTERVAL_SEC
    return interval if 0 < interval <= LONGEST_INTERVAL_SEC else LONGEST_INTERVAL_SEC
