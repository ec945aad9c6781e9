"""Payloads that are too large for a document, in a GridFS bucket.

A blob never changes and is written before the document that points at it. Its metadata name its
owner: ``{task_id, use, version}``. So deleting a task also finds the blobs that no document points
at.
"""

import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowkit_mongo._calls import Calls, side_by_side
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._database import Database, Document
from flowkit_mongo._documents import Read, Value, blob_of, inline

AT_A_TIME = 8
BUDGET_IN_THRESHOLDS = 3
"""Sum of the payloads that stay in one document, in units of the threshold of a single one."""
POINTER_BYTES = 64
"""Size of the pointer to a blob. Payloads up to this size take less space in the document."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob to be written."""

    blob_id: str
    use: str
    data: bytes


@dataclass(slots=True)
class Outgoing:
    """Blobs of one document, collected while the document is built and written before it.

    ``budget`` is the number of bytes that the document may still hold itself, so that many medium
    payloads do not make a large document.
    """

    task_id: str
    version: int
    threshold: int | None
    budget: int
    blobs: list[Blob] = field(default_factory=list)

    def write(self, use: str, data: bytes) -> Value:
        """Return the value for a payload: the payload itself or a pointer to a new blob."""
        size = len(data)
        if (
            self.threshold is None
            or size <= POINTER_BYTES
            or (size <= self.threshold and size <= self.budget)
        ):
            self.budget -= size
            return inline(data)
        blob = Blob(uuid.uuid4().hex, use, data)
        self.blobs.append(blob)
        return {"blob": blob.blob_id}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The payloads of some values."""

    read: Read
    missing: set[str]
    """Ids of the blobs that do not exist or are damaged; ``read`` fails for these."""


class Blobs:
    """The bucket ``{namespace}_blobs``."""

    def __init__(
        self, database: Database, calls: Calls, namespace: str, config: MongoConfig
    ) -> None:
        self._database, self._calls = database, calls
        self._name = f"{namespace}_blobs"
        self._threshold = config.blob_threshold_bytes if database.has_blobs else None
        self._bucket: Any = database.bucket(self._name) if database.has_blobs else None
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached, self._cache_limit = 0, config.blob_cache_bytes

    def outgoing(self, task_id: str, *, version: int = 0) -> Outgoing:
        """Return an empty collection of blobs for one document."""
        budget = (self._threshold or 0) * BUDGET_IN_THRESHOLDS
        return Outgoing(task_id, version, self._threshold, budget)

    async def upload(self, outgoing: Iterable[Outgoing]) -> None:
        """Write the blobs of documents that are written next.

        A repetition may leave blobs that no document points at, which retention deletes.
        """
        for batch in outgoing:
            for blob in batch.blobs:
                metadata = {"task_id": batch.task_id, "use": blob.use, "version": batch.version}
                await self._calls.patiently(partial(self._upload, blob, metadata))

    async def _upload(self, blob: Blob, metadata: Document) -> None:
        # An earlier try may have stored a part of it.
        database = self._database.handle
        await database[f"{self._name}.chunks"].delete_many({"files_id": blob.blob_id})
        await database[f"{self._name}.files"].delete_one({"_id": blob.blob_id})
        await self._bucket.upload_from_stream_with_id(
            blob.blob_id, metadata["use"], blob.data, metadata=metadata
        )

    async def fetch(self, values: Iterable[object]) -> Fetched:
        """Read the payloads of these values."""
        wanted = {blob_id for value in values if (blob_id := blob_of(value)) is not None}
        if not wanted:
            return Fetched(_read_inline, set())
        found: dict[str, bytes] = {}

        async def fetch_one(blob_id: str) -> None:
            data = self._recall(blob_id)
            if data is None:
                data = await self._calls.patiently(lambda: self._download(blob_id))
            if data is not None:
                found[blob_id] = data
                self._remember(blob_id, data)

        await side_by_side([partial(fetch_one, blob_id) for blob_id in wanted], at_a_time=AT_A_TIME)
        return Fetched(_reader(found), wanted - found.keys())

    async def _download(self, blob_id: str) -> bytes | None:
        """Return the bytes of a blob, or None if it is missing, incomplete or damaged."""
        files = await self._database.find(f"{self._name}.files", {"_id": blob_id}, {"length": 1})
        if not files:
            return None
        chunks = await self._database.find(
            f"{self._name}.chunks", {"files_id": blob_id}, {"n": 1, "data": 1}, sort=[("n", 1)]
        )
        complete = [chunk.get("n") for chunk in chunks] == list(range(len(chunks)))
        if not complete or not all(isinstance(chunk.get("data"), bytes) for chunk in chunks):
            return None
        data = b"".join(chunk["data"] for chunk in chunks)
        return data if len(data) == files[0].get("length") else None

    def _recall(self, blob_id: str) -> bytes | None:
        if blob_id in self._cache:
            self._cache.move_to_end(blob_id)
        return self._cache.get(blob_id)

    def _remember(self, blob_id: str, data: bytes) -> None:
        if blob_id in self._cache or len(data) > self._cache_limit:
            return
        self._cache[blob_id] = data
        self._cached += len(data)
        while self._cached > self._cache_limit:
            self._cached -= len(self._cache.popitem(last=False)[1])

    async def discard(self, outgoing: Iterable[Outgoing]) -> None:
        """Delete blobs whose document was not written."""
        await self.delete([blob.blob_id for batch in outgoing for blob in batch.blobs])

    async def replace(self, task_id: str, uses: Collection[str], *, below: int) -> None:
        """Delete the blobs of older versions of a task's document for these uses."""
        await self.delete_where(
            {
                "metadata.task_id": task_id,
                "metadata.use": {"$in": list(uses)},
                "metadata.version": {"$lt": below},
            }
        )

    async def delete_where(self, where: Mapping[str, Any]) -> None:
        """Delete the blobs whose file matches."""
        if self._database.has_blobs:
            found = await self._calls.patiently(
                lambda: self._database.find(f"{self._name}.files", where, {"_id": 1})
            )
            await self.delete([document["_id"] for document in found])

    async def delete(self, blob_ids: Collection[str]) -> None:
        """Delete blobs by their ids."""
        if not blob_ids:
            return
        ids = {"$in": list(blob_ids)}
        # Chunks last, like GridFS: a reader finds a complete file or none.
        database = self._database.handle
        await self._calls.patiently(
            lambda: database[f"{self._name}.files"].delete_many({"_id": ids})
        )
        await self._calls.patiently(
            lambda: database[f"{self._name}.chunks"].delete_many({"files_id": ids})
        )

    async def uploaded_before(self, time: Any, *, after: Any, limit: int) -> list[Document]:
        """Return the files of blobs in the order of their upload."""
        if not self._database.has_blobs:
            return []
        span = {"$lt": time} if after is None else {"$gte": after, "$lt": time}
        return await self._calls.patiently(
            lambda: self._database.find(
                f"{self._name}.files",
                {"uploadDate": span},
                {"uploadDate": 1, "metadata.task_id": 1},
                sort=[("uploadDate", 1)],
                limit=limit,
            )
        )


def _read_inline(value: Value) -> bytes:
    if isinstance(value, dict):
        raise TypeError("a value that is a document must point at a blob")
    return value.encode() if isinstance(value, str) else value


def _reader(blobs: Mapping[str, bytes]) -> Read:
    def read(value: Value) -> bytes:
        blob_id = blob_of(value)
        return _read_inline(value) if blob_id is None else blobs[blob_id]

    return read
