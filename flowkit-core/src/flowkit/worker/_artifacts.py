"""Artifacts of nodes: their writer and reader, hints about their streams, claims of attempts."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from flowkit._records.claims import Claim, claim_record, read_claim
from flowkit._records.kept_artifacts import kept_records
from flowkit._records.queries import artifact_meta, artifact_page
from flowkit._runtime.concurrency import all_arrived
from flowkit._runtime.retries import notices_of, patiently
from flowkit.errors import FlowKitError, NodeFailure, RecordTooLarge
from flowkit.graph._expanded_plan import split_child_id
from flowkit.messages import RunNode, StreamMoved, StreamRead, encode
from flowkit.protocols import ArtifactRecord, ArtifactStore, Bus, Clock, Message, Stream
from flowkit.task import KeptArtifact

logger = logging.getLogger(__name__)

COMPLETE_UID = "__complete__"
"""The uid of a node's complete artifact. No batch may have it."""
MAX_PUT = 500
PAGE = 100

Done = Callable[[bool | Exception], None]
"""Called with True for a new record, False for one that was stored before, or the error."""
HINT_EVERY_SEC = 0.02


def stream_of(command: RunNode) -> Stream:
    """Return the stream of the artifacts that a run stores. All shards of a node have one."""
    node_id = command.node_id
    if command.shard is not None:
        node_id = split_child_id(node_id)[0]
    return Stream(command.task_id, node_id, command.generation)


class ArtifactWriter:
    """Stores the records of all runs. Records added during a call go into the next call."""

    def __init__(self, store: ArtifactStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[tuple[ArtifactRecord, Done]] = []
        self._signal = asyncio.Event()

    def add(self, record: ArtifactRecord, done: Done) -> None:
        """Store a record in the background, in the order of the calls, then call ``done``."""
        self._waiting.append((record, done))
        self._signal.set()

    async def put(self, record: ArtifactRecord) -> bool:
        """Store a record, and return whether it is new."""
        answer: asyncio.Future[bool | Exception] = asyncio.get_running_loop().create_future()

        def done(outcome: bool | Exception) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self.add(record, done)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def store_records(self) -> None:
        """Run the loop that stores records."""
        while True:
            while self._waiting:
                await self._put(self._waiting[:MAX_PUT])
            await self._signal.wait()
            self._signal.clear()
            await all_arrived(self._waiting)

    async def _put(self, items: Sequence[tuple[ArtifactRecord, Done]]) -> None:
        outcome: Sequence[bool | Exception]
        records, callbacks = zip(*items, strict=True)
        try:
            outcome = await patiently(
                partial(self._store.put, records), clock=self._clock, what="store artifacts"
            )
        except Exception as error:
            if len(items) > 1:
                # Stored one by one, only the faulty record fails.
                for item in items:
                    await self._put([item])
                return
            outcome = [_refusal(items[0][0], error)]
        del self._waiting[: len(items)]
        for done, answer in zip(callbacks, outcome, strict=True):
            done(answer)


def _refusal(record: ArtifactRecord, error: Exception) -> Exception:
    """Return the error for the run whose record the store refused."""
    if isinstance(error, RecordTooLarge):
        return NodeFailure(
            f"the artifact {record.uid!r} is too large: {error}",
            reason_code="artifact_too_large",
            permanent=True,
        )
    return error


class ArtifactReader:
    """Reads streams page by page, and retries while the store is unavailable."""

    def __init__(self, store: ArtifactStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def page(
        self,
        stream: Stream,
        *,
        after: int,
        to_the_end: bool = False,
        kept: Sequence[KeptArtifact] = (),
    ) -> Sequence[ArtifactRecord]:
        """Read the next page after a position. The stream is read from the store, unless the record
        of its node has ``kept`` it.

        Without ``to_the_end``, for a stream that has not ended, the newest records may be missing
        for a moment.

        Raises:
            NodeFailure: ``artifact_lost``; a record is missing although a later one is stored.
        """

        if kept:
            return kept_records(stream, kept)[after:]

        async def read(*, latest: bool = False) -> Sequence[ArtifactRecord]:
            return await artifact_page(self._store, stream, after=after, limit=PAGE, latest=latest)

        page = await patiently(read, clock=self._clock, what="read artifacts")
        if page or not to_the_end:
            return page
        return await patiently(lambda: read(latest=True), clock=self._clock, what="read artifacts")

    async def records(
        self, stream: Stream, *, kept: Sequence[KeptArtifact] = ()
    ) -> AsyncIterator[ArtifactRecord]:
        """Yield all records that are stored now."""
        after = 0
        while page := await self.page(stream, after=after, to_the_end=True, kept=kept):
            for record in page:
                yield record
            after = page[-1].position

    async def known(self, stream: Stream, uids: Sequence[str]) -> set[str]:
        return await patiently(
            lambda: self._store.known(stream, uids), clock=self._clock, what="look for artifacts"
        )

    def meta(self, record: ArtifactRecord) -> dict[str, Any] | None:
        """Return the handler's ``artifacts_ref``.

        Raises:
            CorruptRecord: the record was changed in the store.
        """
        return artifact_meta(record)


class StreamHints:
    """Notifies the readers of a stream of new artifacts, and producers of what is read.

    The first hint is sent at once, later ones at most every ``HINT_EVERY_SEC``.
    """

    def __init__(self, *, bus: Bus, topic: str, clock: Clock) -> None:
        self._bus = bus
        self._topic = topic
        self._clock = clock
        self._moved: dict[Stream, Mapping[str, bytes]] = {}
        self._read: dict[tuple[Stream, str], StreamRead] = {}
        self._signal = asyncio.Event()

    def moved(self, stream: Stream, headers: Mapping[str, bytes]) -> None:
        self._moved[stream] = headers
        self._signal.set()

    def read(self, stream: Stream, read: StreamRead) -> None:
        self._read[stream, read.reader] = read
        self._signal.set()

    async def send_hints(self) -> None:
        """Run the loop that sends.

        The reader of a lost hint polls instead. Positions of readers are repeated.
        """
        notices = notices_of(self._clock)
        while True:
            await self._signal.wait()
            self._signal.clear()
            moved, self._moved = self._moved, {}
            read, self._read = self._read, {}
            messages = [self._hint(stream, headers) for stream, headers in moved.items()]
            messages += [Message(self._topic, encode(one), one.task_id) for one in read.values()]
            try:
                await self._bus.publish(messages)
            except FlowKitError as error:
                notices.trouble(
                    logger,
                    "hints",
                    "Hints about streams cannot be sent",
                    error,
                    action="hints_lost",
                    level=logging.INFO,
                )
            else:
                notices.over(logger, "hints")
            await self._clock.sleep(HINT_EVERY_SEC)

    def _hint(self, stream: Stream, headers: Mapping[str, bytes]) -> Message:
        hint = StreamMoved(
            task_id=stream.task_id, node_id=stream.node_id, generation=stream.generation
        )
        return Message(self._topic, encode(hint), stream.task_id, headers)


class StreamWatch:
    """The streams that one reader follows: which moved and which ended since its last read."""

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = frozenset(streams)
        self.moved: set[Stream] = set()
        self.ended: set[Stream] = set()
        self._signal = asyncio.Event()

    def notice(self, stream: Stream, *, ended: bool) -> None:
        self.moved.add(stream)
        if ended:
            self.ended.add(stream)
        self._signal.set()

    async def wait(self, streams: Collection[Stream]) -> None:
        """Return when one of these streams has moved. Late hints of other streams are ignored."""
        while self.moved.isdisjoint(streams):
            await self._signal.wait()
            self._signal.clear()


class StreamWatches:
    """The readers of a worker, by stream."""

    def __init__(self) -> None:
        self._watches: dict[Stream, dict[StreamWatch, None]] = {}

    def add(self, watch: StreamWatch) -> None:
        for stream in watch.streams:
            self._watches.setdefault(stream, {})[watch] = None

    def remove(self, watch: StreamWatch) -> None:
        for stream in watch.streams:
            watches = self._watches[stream]
            watches.pop(watch, None)
            if not watches:
                del self._watches[stream]

    def notice(self, hint: StreamMoved) -> None:
        stream = Stream(hint.task_id, hint.node_id, hint.generation)
        for watch in self._watches.get(stream, ()):
            watch.notice(stream, ended=hint.ended)


class Claims:
    """Claims attempts for one worker. Claims made during a write go into the next write."""

    def __init__(self, store: ArtifactStore, *, worker_id: str, clock: Clock) -> None:
        self._store = store
        self._worker_id = worker_id
        self._clock = clock
        self._marks = map(f"{secrets.token_hex(8)}-{{}}".format, count())
        """Marks that no other claim has."""
        # A writer of its own: a start never waits until large artifacts are stored.
        self._writer = ArtifactWriter(store, clock=clock)
        self.write_claims = self._writer.store_records
        """Run the loop that writes claims."""

    async def claim(self, command: RunNode) -> Claim | None:
        """Claim an attempt for this worker.

        Return None on success, else the earlier claim of another run.
        """
        claim = Claim(self._worker_id, self._clock.now(), next(self._marks))
        is_new = await self._writer.put(
            claim_record(command.task_id, command.node_id, command.token, claim)
        )
        return None if is_new else await self._earlier(command, claim)

    async def _earlier(self, command: RunNode, claim: Claim) -> Claim | None:
        """Return the stored claim if another run made it.

        A repeated write may find its own claim.
        """
        stored = await patiently(
            lambda: read_claim(self._store, command.task_id, command.node_id, command.token),
            clock=self._clock,
            what="read a claim",
        )
        return stored if stored is not None and stored.mark != claim.mark else None
