"""Artifacts that runs keep back for the reports of their ends."""

import asyncio
from collections.abc import Callable

from pydantic_core import from_json, to_json

from flowkit._records.kept_artifacts import kept_artifact
from flowkit.protocols import ArtifactRecord, Clock
from flowkit.task import KeptArtifact

KEEP_SEC = 0.2
"""A run that goes on for longer stores its artifacts."""
MOST_BYTES = 16_384
"""Size as JSON up to which artifacts are kept back together, and beside results up to this size:
each reader of the record reads both.
"""


class LateRuns:
    """The runs of a worker that keep artifacts back. Those that go on have to store them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[KeptBack, None] = {}
        self._filled = asyncio.Event()

    def add(self, kept: "KeptBack") -> None:
        self._running[kept] = None
        self._filled.set()

    def discard(self, kept: "KeptBack") -> None:
        self._running.pop(kept, None)

    async def release(self) -> None:
        """Run the loop that lets runs store what they keep back."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            late = list(self._running)
            await self._clock.sleep(KEEP_SEC)
            for kept in late:
                if kept in self._running:
                    kept.release()
            if self._running:
                self._filled.set()


class KeptBack:
    """The artifacts that one run keeps back, so that they travel with the report of its end: one
    batch and the complete artifact, if they are small. All other artifacts are stored.
    """

    def __init__(
        self, store: Callable[[ArtifactRecord], None], late: LateRuns, *, allowed: bool
    ) -> None:
        """``store`` stores an artifact that is not kept back any more."""
        self._store = store
        self._late = late
        self._allowed = allowed
        self._records: list[ArtifactRecord] = []
        self._left_bytes = MOST_BYTES

    def add(self, record: ArtifactRecord) -> bool:
        """Keep back an artifact, or return False: it and all later ones have to be stored."""
        self._left_bytes -= len(record.meta or b"") + len(record.metrics)
        if not self._allowed or (self._records and record.partial) or self._left_bytes < 0:
            self.release()
            return False
        self._records.append(record)
        self._late.add(self)
        return True

    def release(self) -> None:
        """Store what is kept back. Nothing is kept back from now on."""
        self._allowed = False
        self._late.discard(self)
        records, self._records = self._records, []
        for record in records:
            self._store(record)

    def seal(self, result: object) -> None:
        """Keep the artifacts beside this result until the end is reported, however long that takes,
        unless the result is large.
        """
        if self._records and result is not None and len(to_json(result)) > MOST_BYTES:
            self.release()
        self._late.discard(self)

    def metrics(self) -> list[dict[str, float | int]]:
        """Return the metrics of the batches that are kept back."""
        return [from_json(record.metrics) for record in self._records if record.partial]

    def report(self) -> tuple[KeptArtifact, ...]:
        """Return the artifacts as fields of the report."""
        return tuple(map(kept_artifact, self._records))
