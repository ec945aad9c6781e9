"""Artifacts of nodes: one document each, numbered without gaps in its stream.

A record gets its position by an insert after the last known position. The unique index on streams
and positions refuses the slower of two writers, which then finds the new end and tries again. So
a record at position n is stored only when the record at n - 1 is visible.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
from pymongo import ASCENDING, DESCENDING

from flowkit.errors import CorruptRecord, StoreUnavailable
from flowkit.protocols import ArtifactRecord, Stream
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._calls import Operation, side_by_side
from flowkit_mongo._context import Context, corrupt, sound
from flowkit_mongo._database import Document
from flowkit_mongo._documents import (
    artifact_document,
    artifact_id,
    artifact_record,
    placed,
    stream_fields,
)
from flowkit_mongo._value_forms import INDEX

BY_TIME = [("created_at", 1), ("order", 1)]
AT_A_TIME = 16
TRIES = 60
PAUSE_SEC = 0.002
REMEMBERED_STREAMS = 10_000
REMEMBER_SEC = 60.0
"""Time after which a stream's last position is read again.

The task may have been deleted and its id may belong to a new one.
"""


@dataclass(slots=True)
class _Pending:
    """A record of one ``put``."""

    document: Document
    outgoing: Outgoing
    new: bool = False
    """Whether this call stored it."""


@dataclass(slots=True)
class _Queue:
    """The records of one ``put`` that are not stored yet, of one stream, in order."""

    stream: Stream
    waiting: list[_Pending] = field(default_factory=list)
    last: int = 0
    """The last known position of the stream."""

    def stored(self, count: int) -> None:
        """Record that the first ``count`` waiting records are in the stream."""
        for pending in self.waiting[:count]:
            pending.new = True
        del self.waiting[:count]
        self.last += count


@dataclass(frozen=True, slots=True)
class _End:
    """The last position of a stream, and the time when it was known."""

    position: int
    at: float


class MongoArtifactStore:
    """An :class:`~flowkit.protocols.ArtifactStore`: the collection ``{namespace}_artifacts``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ends: OrderedDict[Stream, _End] = OrderedDict()

    # ------------------------------------------------------------ writing

    async def put(self, records: Sequence[ArtifactRecord]) -> list[bool]:
        for record in records:
            size = len(record.meta or b"") + len(record.metrics)
            self._context.check_size(size, "artifact {!r} of {}", record.uid, record.stream)
        mark = secrets.token_hex(8)
        all_pending = [self._pending(record, mark) for record in records]
        queues: dict[Stream, _Queue] = {}
        seen: set[str] = set()
        for record, pending in zip(records, all_pending, strict=True):
            if pending.document["_id"] not in seen:
                seen.add(pending.document["_id"])
                queue = queues.setdefault(
                    record.stream, _Queue(record.stream, last=self._recall(record.stream))
                )
                queue.waiting.append(pending)
        await self._context.blobs.upload(
            pending.outgoing for queue in queues.values() for pending in queue.waiting
        )
        try:
            await self._store(list(queues.values()))
        except BaseException:
            for stream in queues:
                self._ends.pop(stream, None)
            raise
        for queue in queues.values():
            self._remember(queue)
        return [pending.new for pending in all_pending]

    def _pending(self, record: ArtifactRecord, mark: str) -> _Pending:
        outgoing = self._context.blobs.outgoing(record.stream.task_id)
        return _Pending(artifact_document(record, outgoing.write, mark=mark), outgoing)

    async def _store(self, queues: Sequence[_Queue]) -> None:
        """Insert all waiting records; when others write to a stream, continue after them."""
        for attempt in range(TRIES):
            queues = [queue for queue in queues if queue.waiting]
            if not queues:
                return
            if attempt:
                await self._drop_stored(queues)
                await side_by_side(
                    [partial(self._find_end, queue) for queue in queues], at_a_time=AT_A_TIME
                )
                await anyio.sleep(secrets.randbelow(attempt) * PAUSE_SEC)
            await self._insert(queues)
        if any(queue.waiting for queue in queues):
            raise StoreUnavailable(
                f"too many processes write artifacts of {queues[0].stream} at the same time"
            )

    async def _insert(self, queues: Sequence[_Queue]) -> None:
        """Insert single records of streams in one unordered bulk, each longer queue in order."""
        single = [queue for queue in queues if len(queue.waiting) == 1]
        inserts: list[Operation] = [
            partial(self._insert_ordered, queue) for queue in queues if len(queue.waiting) > 1
        ]
        if single:
            inserts.append(partial(self._insert_single, single))
        await side_by_side(inserts, at_a_time=AT_A_TIME)

    async def _insert_single(self, queues: Sequence[_Queue]) -> None:
        documents = [placed(queue.waiting[0].document, queue.last + 1) for queue in queues]
        taken = await self._send(documents, ordered=False)
        for number, queue in enumerate(queues):
            if number not in taken:
                queue.stored(1)

    async def _insert_ordered(self, queue: _Queue) -> None:
        documents = [
            placed(pending.document, queue.last + place)
            for place, pending in enumerate(queue.waiting, 1)
        ]
        taken = await self._send(documents, ordered=True)
        queue.stored(min(taken, default=len(documents)))

    async def _send(self, documents: Sequence[Document], *, ordered: bool) -> set[int]:
        # After a repetition, ``_drop_stored`` recognizes what the first try stored by its mark.
        database, name = self._context.database, self._context.name("artifacts")
        return await self._context.calls.patiently(
            lambda: database.insert(name, documents, ordered=ordered)
        )

    async def _drop_stored(self, queues: Sequence[_Queue]) -> None:
        """Drop the waiting records that are stored by now, and discard the blobs of repetitions."""
        ids = [pending.document["_id"] for queue in queues for pending in queue.waiting]
        found = await self._context.find("artifacts", {"_id": {"$in": ids}}, {"put": 1})
        marks = {document["_id"]: document.get("put") for document in found}
        for queue in queues:
            known = [pending for pending in queue.waiting if pending.document["_id"] in marks]
            queue.waiting = [
                pending for pending in queue.waiting if pending.document["_id"] not in marks
            ]
            for pending in known:
                pending.new = marks[pending.document["_id"]] == pending.document["put"]
            await self._context.blobs.discard(
                pending.outgoing for pending in known if not pending.new
            )

    async def _find_end(self, queue: _Queue) -> None:
        """Read the last position of a stream.

        Raises:
            CorruptRecord: a position in the stream is damaged. Records after it could not be read.
        """
        for direction in (ASCENDING, DESCENDING):
            queue.last = await self._outermost(queue.stream, direction)

    async def _outermost(self, stream: Stream, direction: int) -> int:
        # Including records that the majority has not confirmed: if such a record is lost, the
        # records after it are lost with it.
        newest = self._context.database.newest(self._context.name("artifacts"))
        order = [("position", direction)]
        found = await self._context.calls.patiently(
            lambda: newest.find_one(stream_fields(stream), {"position": 1}, sort=order)
        )
        if found is None:
            return 0
        position = found.get("position")
        if not INDEX.fits(position):
            raise corrupt(
                found, f"its position must be {INDEX.words}, but is {type(position).__name__}"
            )
        return int(position)

    def _recall(self, stream: Stream) -> int:
        end = self._ends.get(stream)
        return 0 if end is None or time.monotonic() - end.at >= REMEMBER_SEC else end.position

    def _remember(self, queue: _Queue) -> None:
        self._ends[queue.stream] = _End(queue.last, time.monotonic())
        self._ends.move_to_end(queue.stream)
        if len(self._ends) > REMEMBERED_STREAMS:
            self._ends.popitem(last=False)

    def forget(self, task_ids: Collection[str]) -> None:
        """Forget the streams of deleted tasks: a new task with the same id starts at the front."""
        for stream in [stream for stream in self._ends if stream.task_id in task_ids]:
            del self._ends[stream]

    # ------------------------------------------------------------ reading

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> list[ArtifactRecord]:
        found = await self._read(
            {**stream_fields(stream), "position": {"$gt": after}}, "position", limit, latest=latest
        )
        return [record for _, record in found]

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        if not uids:
            return set()
        wanted = {artifact_id(stream, uid): uid for uid in uids}
        found = await self._context.find("artifacts", {"_id": {"$in": list(wanted)}}, {"_id": 1})
        return {wanted[document["_id"]] for document in found}

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[tuple[tuple[float, str], ArtifactRecord]]:
        where: Document = {"task_id": task_id}
        if after is not None:
            created_at, order = after
            where["created_at"] = {"$gte": created_at}
            where["$or"] = [{"created_at": {"$gt": created_at}}, {"order": {"$gt": order}}]
        found = await self._read(where, "created_at", limit)
        return [((record.created_at, order), record) for order, record in found]

    async def _read(
        self, where: Document, by: str, limit: int, *, latest: bool = False
    ) -> list[tuple[str, ArtifactRecord]]:
        found: list[tuple[str, ArtifactRecord] | CorruptRecord] = await self._context.read(
            "artifacts",
            where,
            values=lambda document: [document["meta"], document["metrics"]],
            decode=lambda document, read: (document["order"], artifact_record(document, read)),
            unreadable=corrupt,
            sort=BY_TIME if by == "created_at" else [(by, 1)],
            limit=limit,
            latest=latest,
        )
        return sound(found)
