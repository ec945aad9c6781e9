"""Artifacts that runs keep back for the reports of their ends."""

import asyncio
from typing import Protocol

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


class Late(Protocol):
    """A run that keeps artifacts back."""

    def release(self) -> None:
        """Store what is kept back. Nothing is kept back from now on."""


class LateRuns:
    """The runs of a worker that keep artifacts back. Those that go on have to store them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[Late, None] = {}
        self._filled = asyncio.Event()

    def add(self, run: Late) -> None:
        self._running[run] = None
        self._filled.set()

    def discard(self, run: Late) -> None:
        self._running.pop(run, None)

    async def release(self) -> None:
        """Run the loop that lets runs store what they keep back."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            late = list(self._running)
            await self._clock.sleep(KEEP_SEC)
            for run in late:
                if run in self._running:
                    run.release()
            if self._running:
                self._filled.set()


class KeptBack:
    """The artifacts that one run keeps back, so that they travel with the report of its end: one
    batch and the complete artifact, if they are small. All other artifacts are stored.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._records: list[ArtifactRecord] = []
        self._left_bytes = MOST_BYTES

    def add(self, record: ArtifactRecord) -> bool:
        """Keep back an artifact, or return False: it and all others have to be stored."""
        self._left_bytes -= len(record.meta or b"") + len(record.metrics)
        if not self._allowed or (self._records and record.partial) or self._left_bytes < 0:
            return False
        self._records.append(record)
        return True

    def take(self) -> list[ArtifactRecord]:
        """Take what is kept back. Nothing is kept back from now on."""
        self._allowed = False
        records, self._records = self._records, []
        return records

    def is_beside(self, result: object) -> bool:
        """Return whether the artifacts can be kept beside this result, which may be large."""
        return not self._records or result is None or len(to_json(result)) <= MOST_BYTES

    def metrics(self) -> list[dict[str, float | int]]:
        """Return the metrics of the batches that are kept back."""
        return [from_json(record.metrics) for record in self._records if record.partial]

    def report(self) -> tuple[KeptArtifact, ...]:
        """Return the artifacts as fields of the report."""
        return tuple(map(kept_artifact, self._records))
