"""The numbers that the engine's decisions depend on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Seconds, but for ``max_in_flight``: how many nodes of a task are dispatched at a time."""

    max_in_flight: int = 512
    lease_ttl_sec: float = 20.0
    worker_lost_sec: float = 20.0
    cancel_grace_sec: float = 10.0
    resend_sec: float = 5.0
    """How long a decided effect may stay undone before somebody looks after it."""
    worker_suspect_sec: float = 10.0
    """A worker that was silent for longer is not asked what became of a run."""
    sends: bool = False
    """Whoever applies the events also sends the commands that follow from them."""
