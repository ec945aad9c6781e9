"""What the parts of a worker share."""

from dataclasses import dataclass

from flowkit._runtime.turns import Turns
from flowkit.config import WorkerConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store
from flowkit.worker._artifacts import ArtifactReader, ArtifactWriter
from flowkit.worker._claims import Claims
from flowkit.worker._streams import StreamHints, StreamWatches


@dataclass(frozen=True, slots=True)
class Services:
    """What all runs of a worker share."""

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
    """Turns for other tasks between two batches: handlers may not wait for anything."""
