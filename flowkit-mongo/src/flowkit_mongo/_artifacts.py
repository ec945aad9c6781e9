"""What nodes produce: one document an artifact, numbered without a gap along its stream.

A position is taken by inserting behind the last one known; the unique index on streams and
positions refuses whoever was slower, who looks again and goes behind. So a record at position n is
never stored before that at n - 1 is there to be seen.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
from pymongo import ASCENDING, DESCENDING

from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable
from flowkit.protocols import ArtifactRecord, Stream
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._calls import Operation, side_by_side
from flowkit_mongo._context import Context, corrupt, sound
from flowkit_mongo._document_schemas import INDEX
from flowkit_mongo._documents import (
    artifact_document,
    artifact_id,
    artifact_record,
    placed,
    stream_fields,
)
from flowkit_mongo._driver import Document

BY_TIME = [("created_at", 1), ("order", 1)]
AT_A_TIME = 16
LOOKS = 60
REMEMBERED_STREAMS = 10_000
REMEMBER_SEC = 60.0
"""A stream's last position is looked up again after so long: its task may have been deleted and its
id used anew.
"""


@dataclass(slots=True)
class _Pending:
    """A record of a call that is not stored yet."""

    number: int
    document: Document
    outgoing: Outgoing


@dataclass(slots=True)
class _Queue:
    """The records of a call that go into one stream, in order."""

    stream: Stream
    waiting: list[_Pending] = field(default_factory=list)
    last: int = 0


class MongoArtifactStore:
    """An :class:`~flowkit.protocols.ArtifactStore`: the collection ``{namespace}_artifacts``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: OrderedDict[Stream, tuple[int, float]] = OrderedDict()

    # ------------------------------------------------------------ writing

    async def put(self, records: Sequence[ArtifactRecord]) -> list[bool]:
        for record in records:
            self._check_size(record)
        mark = secrets.token_hex(8)
        queues: dict[Stream, _Queue] = {}
        seen: set[str] = set()
        for number, record in enumerate(records):
            outgoing = self._context.blobs.outgoing(record.stream.task_id)
            document = artifact_document(record, outgoing.write, mark=mark)
            if document["_id"] not in seen:
                seen.add(document["_id"])
                queue = queues.setdefault(
                    record.stream, _Queue(record.stream, last=self._recall(record.stream))
                )
                queue.waiting.append(_Pending(number, document, outgoing))
        await self._context.blobs.upload(
            pending.outgoing for queue in queues.values() for pending in queue.waiting
        )
        new = [False] * len(records)
        try:
            await self._store(list(queues.values()), new)
        except BaseException:
            for stream in queues:
                self._last.pop(stream, None)
            raise
        for queue in queues.values():
            self._remember(queue)
        return new

    async def _store(self, queues: Sequence[_Queue], new: list[bool]) -> None:
        """Insert all that waits, going behind others as often as it takes."""
        for attempt in range(LOOKS):
            queues = [queue for queue in queues if queue.waiting]
            if not queues:
                return
            if attempt:
                await self._look_again(queues, new)
                await anyio.sleep(secrets.randbelow(attempt) * 0.002)
            await self._insert(queues, new)
        if any(queue.waiting for queue in queues):
            raise StoreUnavailable(
                f"too many write to the artifacts of {queues[0].stream} at the same time"
            )

    async def _insert(self, queues: Sequence[_Queue], new: list[bool]) -> None:
        """One bulk for streams that get one record, which need no order between them; one ordered
        insert for each other stream.
        """
        single = [queue for queue in queues if len(queue.waiting) == 1]
        inserts: list[Operation] = [
            partial(self._insert_ordered, queue, new) for queue in queues if len(queue.waiting) > 1
        ]
        if single:
            inserts.append(partial(self._insert_single, single, new))
        await side_by_side(inserts, at_a_time=AT_A_TIME)

    async def _insert_single(self, queues: Sequence[_Queue], new: list[bool]) -> None:
        documents = [placed(queue.waiting[0].document, queue.last + 1) for queue in queues]
        taken = await self._send(documents, ordered=False)
        for number, queue in enumerate(queues):
            if number not in taken:
                _stored(queue, 1, new)

    async def _insert_ordered(self, queue: _Queue, new: list[bool]) -> None:
        documents = [
            placed(pending.document, queue.last + place)
            for place, pending in enumerate(queue.waiting, 1)
        ]
        taken = await self._send(documents, ordered=True)
        _stored(queue, min(taken, default=len(documents)), new)

    async def _send(self, documents: Sequence[Document], *, ordered: bool) -> set[int]:
        # A repetition finds what the first try stored by its mark, when it looks again.
        driver, name = self._context.driver, self._context.name("artifacts")
        return await self._context.calls.patiently(
            lambda: driver.insert(name, documents, ordered=ordered)
        )

    async def _look_again(self, queues: Sequence[_Queue], new: list[bool]) -> None:
        """Drop what is stored by now, and see where the streams end."""
        ids = [pending.document["_id"] for queue in queues for pending in queue.waiting]
        found = await self._context.find("artifacts", {"_id": {"$in": ids}}, {"put": 1})
        marks = {document["_id"]: document.get("put") for document in found}
        for queue in queues:
            known = [pending for pending in queue.waiting if pending.document["_id"] in marks]
            queue.waiting = [
                pending for pending in queue.waiting if pending.document["_id"] not in marks
            ]
            for pending in known:
                new[pending.number] = marks[pending.document["_id"]] == pending.document["put"]
            await self._context.blobs.discard(
                pending.outgoing for pending in known if not new[pending.number]
            )
        await side_by_side(
            [partial(self._find_end, queue) for queue in queues], at_a_time=AT_A_TIME
        )

    async def _find_end(self, queue: _Queue) -> None:
        """Find the last position of a stream.

        Raises:
            CorruptRecord: a record of the stream has a position that is none. What goes behind it
                could not be read.
        """
        for direction in (ASCENDING, DESCENDING):
            queue.last = await self._outermost(queue.stream, direction)

    async def _outermost(self, stream: Stream, direction: int) -> int:
        # Not only what the majority has confirmed: whatever follows such a record is lost with it,
        # should it be lost.
        newest = self._context.driver.newest(self._context.name("artifacts"))
        order = [("position", direction)]
        found = await self._context.calls.patiently(
            lambda: newest.find_one(stream_fields(stream), {"position": 1}, sort=order)
        )
        if found is None:
            return 0
        position = found.get("position")
        if not INDEX.fits(position):
            raise corrupt(
                found, f"its position is {INDEX.words}, and holds {type(position).__name__}"
            )
        return int(position)

    def _check_size(self, record: ArtifactRecord) -> None:
        size, limit = (
            len(record.meta or b"") + len(record.metrics),
            self._context.config.max_record_bytes,
        )
        if size > limit:
            raise RecordTooLarge(
                f"artifact {record.uid!r} of {record.stream} is {size} bytes; at most {limit} are"
                " stored (max_record_bytes)"
            )

    def _recall(self, stream: Stream) -> int:
        last, at = self._last.get(stream, (0, 0.0))
        return last if time.monotonic() - at < REMEMBER_SEC else 0

    def _remember(self, queue: _Queue) -> None:
        self._last[queue.stream] = queue.last, time.monotonic()
        self._last.move_to_end(queue.stream)
        if len(self._last) > REMEMBERED_STREAMS:
            self._last.popitem(last=False)

    def forget(self, task_ids: Collection[str]) -> None:
        """These tasks were deleted: their streams begin anew, should there be others of the same
        id.
        """
        for stream in [stream for stream in self._last if stream.task_id in task_ids]:
            del self._last[stream]

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
            time, order = after
            where["created_at"] = {"$gte": time}
            where["$or"] = [{"created_at": {"$gt": time}}, {"order": {"$gt": order}}]
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


def _stored(queue: _Queue, count: int, new: list[bool]) -> None:
    """The first ``count`` of those that waited are in the stream now."""
    for pending in queue.waiting[:count]:
        new[pending.number] = True
    del queue.waiting[:count]
    queue.last += count
