"""Artifacts that runs keep back for the reports of their ends."""

import asyncio
from typing import Protocol

from pydantic_core import to_json

from flowkit.protocols import Clock
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
        self.artifacts: list[KeptArtifact] = []
        self._left_bytes = MOST_BYTES

    def add(self, one: KeptArtifact) -> bool:
        """Keep back an artifact, or return False: it and all others have to be stored."""
        if not self._allowed or (self.artifacts and one.partial):
            return False
        self._left_bytes -= len(to_json((one.meta, one.metrics)))
        if self._left_bytes < 0:
            return False
        self.artifacts.append(one)
        return True

    def take(self) -> list[KeptArtifact]:
        """Take what is kept back. Nothing is kept back from now on."""
        self._allowed = False
        artifacts, self.artifacts = self.artifacts, []
        return artifacts

    def is_beside(self, result: object) -> bool:
        """Return whether the artifacts can be kept beside this result, which may be large."""
        return not self.artifacts or result is None or len(to_json(result)) <= MOST_BYTES
