"""Settings of the engine."""

from dataclasses import dataclass

from flowkit._json.limits import MAX_DOCUMENT_BYTES

MAX_LEASE_DOUBLINGS = 10
"""The lease of a node doubles with each attempt, at most this many times."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Timeouts of the engine. ``max_in_flight`` limits the dispatched nodes of a task."""

    max_in_flight: int = 512
    lease_ttl_sec: float = 20.0
    worker_lost_sec: float = 20.0
    cancel_grace_sec: float = 10.0
    resend_sec: float = 5.0
    """Time after which an effect that was not carried out is checked."""
    worker_suspect_sec: float = 10.0
    """A worker without heartbeats for this long is not asked about its runs."""
    max_map_items: int = 100_000
    """Maximum number of items of a map."""
    max_result_bytes: int = MAX_DOCUMENT_BYTES
    """Maximum length of the output of a task, or of the result of a map, as JSON."""
    segments: bool = False
    """Commands may carry the nodes after theirs, if the graph does not say otherwise."""
    sends: bool = False
    """The process that applies the events also sends their commands."""
    publishes: bool | None = False
    """Whether coordinators publish the changes of tasks; None in a client, which does not know."""
