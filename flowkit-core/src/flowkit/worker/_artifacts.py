"""Artifacts: writing those of all runs together, and reading what nodes have stored."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from flowkit._records.queries import artifact_meta, artifact_page, check_complete
from flowkit._runtime.deadlines import Signal, patiently
from flowkit.errors import NodeFailure, RecordTooLarge, TaskNotFound
from flowkit.messages import Source
from flowkit.protocols import ArtifactRecord, ArtifactStore, Clock, Stream
from flowkit.worker._handler_values import dump

COMPLETE_UID = "__complete__"
"""The uid of a node's complete artifact. No batch may have it."""
MAX_PUT = 500
PAGE = 100

Done = Callable[[bool | Exception], None]
"""Told whether the record is new, or why it cannot be stored."""


class ArtifactWriter:
    """Stores the records of all runs: those that came up while the last were on their way go
    together.
    """

    def __init__(self, store: ArtifactStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[tuple[ArtifactRecord, Done]] = []
        self._signal = Signal()

    def add(self, record: ArtifactRecord, done: Done) -> None:
        """Store this soon, in the order of the calls, and tell ``done``."""
        self._waiting.append((record, done))
        self._signal.set()

    async def store_records(self) -> None:
        """The loop that stores."""
        while True:
            while self._waiting:
                await self._put(self._waiting[:MAX_PUT])
            await self._signal.wait()

    async def _put(self, items: Sequence[tuple[ArtifactRecord, Done]]) -> None:
        outcome: Sequence[bool | Exception]
        try:
            records = [record for record, _ in items]
            outcome = await patiently(
                lambda: self._store.put(records), clock=self._clock, what="store artifacts"
            )
        except Exception as error:
            if len(items) > 1:
                # One by one only that which is at fault fails.
                for item in items:
                    await self._put([item])
                return
            outcome = [_refusal(items[0][0], error)]
        del self._waiting[: len(items)]
        for (_, done), answer in zip(items, outcome, strict=True):
            done(answer)


def _refusal(record: ArtifactRecord, error: Exception) -> Exception:
    """What the run is told whose record the store did not take."""
    if isinstance(error, RecordTooLarge):
        return NodeFailure(
            f"the artifact {record.uid!r} is too large: {error}",
            reason_code="artifact_too_large",
            permanent=True,
        )
    return error


class ArtifactReader:
    """Reads streams page by page, waiting where the store is out of reach."""

    def __init__(self, store: ArtifactStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def page(
        self, stream: Stream, *, after: int, to_the_end: bool = False
    ) -> Sequence[ArtifactRecord]:
        """Read what comes next. It may be missing for a moment, unless the stream has ended and is
        read ``to_the_end``.

        Raises:
            NodeFailure: ``artifact_lost``; a record before one that is stored is missing.
        """

        async def read(*, latest: bool = False) -> Sequence[ArtifactRecord]:
            return await artifact_page(self._store, stream, after=after, limit=PAGE, latest=latest)

        page = await patiently(read, clock=self._clock, what="read artifacts")
        if page or not to_the_end:
            return page
        return await patiently(lambda: read(latest=True), clock=self._clock, what="read artifacts")

    async def records(self, stream: Stream) -> AsyncIterator[ArtifactRecord]:
        """Everything that is stored now."""
        after = 0
        while page := await self.page(stream, after=after, to_the_end=True):
            for record in page:
                yield record
            after = page[-1].position

    async def known(self, stream: Stream, uids: Sequence[str]) -> set[str]:
        return await patiently(
            lambda: self._store.known(stream, uids), clock=self._clock, what="look for artifacts"
        )

    def meta(self, record: ArtifactRecord) -> dict[str, Any] | None:
        """Return what the handler gave as ``artifacts_ref``.

        Raises:
            CorruptRecord: this is not what was stored.
        """
        return artifact_meta(record)

    def encoded(self, meta: dict[str, Any] | None) -> bytes | None:
        return None if meta is None else dump(meta)


class RunArtifacts:
    """What a handler may read: its own node's artifacts and those of the node's parents."""

    def __init__(
        self,
        reader: ArtifactReader,
        own: Stream,
        sources: Callable[[], Awaitable[Sequence[Source]]],
        latest_sources: Callable[[], Awaitable[Sequence[Source]]],
    ) -> None:
        self._reader = reader
        self._own = own
        self._sources = sources
        self._latest_sources = latest_sources

    async def read(self, node_id: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """The artifacts (what handlers gave as ``artifacts_ref``) of a parent, or of this node,
        that are stored by now, in order.

        Raises:
            ValueError: the node is no parent of this one.
            NodeFailure: ``artifact_lost``; an artifact that was stored is missing.
        """
        source = (
            None if node_id is None or node_id == self._own.node_id else await self._source(node_id)
        )
        stream = (
            self._own
            if source is None
            else Stream(self._own.task_id, source.node_id, source.generation)
        )
        batches = 0
        async for record in self._reader.records(stream):
            batches += record.partial
            meta = self._reader.meta(record)
            if meta is not None:
                yield meta
        if source is not None:
            check_complete(stream, stored=source.batches, found=batches)

    async def _source(self, node_id: str) -> Source:
        """Return the stream of a parent. One that had not ended when the command was issued is
        loaded again: it may have by now.
        """
        found = _named(node_id, await self._sources())
        if found is None:
            raise ValueError(
                f"node {self._own.node_id!r} can read its own artifacts and those of its parents;"
                f" {node_id!r} is none of them"
            )
        if found.ended:
            return found
        with suppress(TaskNotFound):  # a task that was deleted meanwhile has no use for the outcome
            latest = _named(node_id, await self._latest_sources())
            if latest is not None and latest.generation == found.generation:
                return latest
        return found


def _named(node_id: str, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if source.node_id == node_id), None)
