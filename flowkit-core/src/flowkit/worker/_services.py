"""Services that all runs of a worker share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flowkit._runtime.turns import Turns
from flowkit.config import WorkerConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store
from flowkit.worker._artifacts import ArtifactReader, ArtifactWriter
from flowkit.worker._claims import Claims
from flowkit.worker._streams import StreamHints, StreamWatches

MAX_TURNS = 20
"""Turns of the event loop between two batches: enough for the steps of a heartbeat."""


@dataclass(frozen=True, slots=True)
class Services:
    """Access of runs to the store, to hints about streams, and to the configuration."""

    worker_id: str
    cfg: WorkerConfig
    clock: Clock
    store: Store
    plugins: Plugins
    claims: Claims
    writer: ArtifactWriter
    reader: ArtifactReader
    hints: StreamHints
    watches: StreamWatches
    turns: Turns
    """Lets other tasks run between two batches: a handler may never wait for anything."""

    @classmethod
    def on(
        cls,
        store: Store,
        bus: Bus,
        *,
        worker_id: str,
        cfg: WorkerConfig,
        clock: Clock,
        plugins: Plugins,
    ) -> "Services":
        """Return the services of a worker on this store and bus."""
        return cls(
            worker_id=worker_id,
            cfg=cfg,
            clock=clock,
            store=store,
            plugins=plugins,
            claims=Claims(store.artifacts, worker_id=worker_id, clock=clock),
            writer=ArtifactWriter(store.artifacts, clock=clock),
            reader=ArtifactReader(store.artifacts, clock=clock),
            hints=StreamHints(bus=bus, topic=cfg.control_topic, clock=clock),
            watches=StreamWatches(),
            turns=Turns(least=1, most=MAX_TURNS),
        )

    def loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return the loops that have to run while these services are used, by name."""
        return {
            "artifact": self.writer.store_records,
            "claim": self.claims.write_claims,
            "hint": self.hints.send_hints,
        }
