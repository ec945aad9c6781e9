"""Payloads that are too large for a document, in a GridFS bucket.

A blob never changes and is written before the document that points at it. Its metadata say whose it
is: ``{task_id, use, version}``; so whoever deletes a task finds what nothing points at as well.
"""

import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowkit_mongo._calls import Calls, side_by_side
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._documents import Read, Value, blob_of, inline
from flowkit_mongo._driver import Document, Driver

AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob to be written."""

    blob_id: str
    use: str
    data: bytes


@dataclass(slots=True)
class Outgoing:
    """What one document needs written before it: made while the document is.

    ``budget`` is how much the document may still hold itself, so that many middling payloads do not
    make a large one.
    """

    task_id: str | None
    version: int
    threshold: int | None
    budget: int
    blobs: list[Blob] = field(default_factory=list)

    def write(self, use: str, data: bytes) -> Value:
        if self.threshold is None or (len(data) <= self.threshold and len(data) <= self.budget):
            self.budget -= len(data)
            return inline(data)
        blob = Blob(uuid.uuid4().hex, use, data)
        self.blobs.append(blob)
        return {"blob": blob.blob_id}


class Blobs:
    """The bucket ``{namespace}_blobs``."""

    def __init__(self, driver: Driver, calls: Calls, namespace: str, config: MongoConfig) -> None:
        self._driver, self._calls = driver, calls
        self._name = f"{namespace}_blobs"
        self._threshold = config.blob_threshold_bytes if driver.has_blobs else None
        self._bucket: Any = driver.bucket(self._name) if driver.has_blobs else None
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached, self._cache_limit = 0, config.blob_cache_bytes

    def outgoing(self, task_id: str | None, *, version: int = 0) -> Outgoing:
        return Outgoing(task_id, version, self._threshold, budget=(self._threshold or 0) * 3)

    async def upload(self, outgoing: Iterable[Outgoing]) -> None:
        """Write the blobs of documents that will point at them. Repeating it leaves at most blobs
        that nothing points at.
        """
        for batch in outgoing:
            for blob in batch.blobs:
                metadata = {"task_id": batch.task_id, "use": blob.use, "version": batch.version}
                await self._calls.patiently(partial(self._upload, blob, metadata))

    async def _upload(self, blob: Blob, metadata: Document) -> None:
        # A first try may have left some of it.
        await self._driver.database[f"{self._name}.chunks"].delete_many({"files_id": blob.blob_id})
        await self._driver.database[f"{self._name}.files"].delete_one({"_id": blob.blob_id})
        await self._bucket.upload_from_stream_with_id(
            blob.blob_id, metadata["use"], blob.data, metadata=metadata
        )

    async def fetch(self, values: Iterable[object]) -> tuple[Read, set[str]]:
        """A function that gives the bytes of these values, and the ids of the blobs that are not
        there, whose it cannot give.
        """
        wanted = {blob_id for value in values if (blob_id := blob_of(value)) is not None}
        if not wanted:
            return _read_inline, set()
        found: dict[str, bytes] = {}

        async def fetch_one(blob_id: str) -> None:
            data = self._recall(blob_id)
            if data is None:
                data = await self._calls.patiently(lambda: self._download(blob_id))
            if data is not None:
                found[blob_id] = data
                self._remember(blob_id, data)

        await side_by_side([partial(fetch_one, blob_id) for blob_id in wanted], at_a_time=AT_A_TIME)
        return _reader(found), wanted - found.keys()

    async def _download(self, blob_id: str) -> bytes | None:
        """The bytes of a blob, or None if it is not there as it was written: gone, half deleted, or
        damaged.
        """
        files = await self._driver.find(f"{self._name}.files", {"_id": blob_id}, {"length": 1})
        if not files:
            return None
        chunks = await self._driver.find(
            f"{self._name}.chunks", {"files_id": blob_id}, {"n": 1, "data": 1}, sort=[("n", 1)]
        )
        whole = [chunk.get("n") for chunk in chunks] == list(range(len(chunks)))
        if not whole or not all(isinstance(chunk.get("data"), bytes) for chunk in chunks):
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
        """Delete what older versions of a task's document pointed at for these uses."""
        await self.delete_where(
            {
                "metadata.task_id": task_id,
                "metadata.use": {"$in": list(uses)},
                "metadata.version": {"$lt": below},
            }
        )

    async def delete_where(self, where: Mapping[str, Any]) -> None:
        if self._driver.has_blobs:
            found = await self._calls.patiently(
                lambda: self._driver.find(f"{self._name}.files", where, {"_id": 1})
            )
            await self.delete([document["_id"] for document in found])

    async def delete(self, blob_ids: Collection[str]) -> None:
        if not blob_ids:
            return
        ids = list(blob_ids)
        # Chunks last, as GridFS does: a reader finds a whole file or none.
        await self._calls.patiently(
            lambda: self._driver.database[f"{self._name}.files"].delete_many({"_id": {"$in": ids}})
        )
        await self._calls.patiently(
            lambda: self._driver.database[f"{self._name}.chunks"].delete_many(
                {"files_id": {"$in": ids}}
            )
        )

    async def uploaded_before(self, time: Any, *, after: Any, limit: int) -> list[Document]:
        """Blobs of tasks by the time of their writing."""
        if not self._driver.has_blobs:
            return []
        span = {"$lt": time} if after is None else {"$gte": after, "$lt": time}
        return await self._calls.patiently(
            lambda: self._driver.find(
                f"{self._name}.files",
                {"uploadDate": span},
                {"uploadDate": 1, "metadata.task_id": 1},
                sort=[("uploadDate", 1)],
                limit=limit,
            )
        )


def _read_inline(value: Value) -> bytes:
    if isinstance(value, dict):
        raise TypeError("a value that is a document has to point at a blob")
    return value.encode() if isinstance(value, str) else value


def _reader(blobs: Mapping[str, bytes]) -> Read:
    def read(value: Value) -> bytes:
        blob_id = blob_of(value)
        return _read_inline(value) if blob_id is None else blobs[blob_id]

    return read
