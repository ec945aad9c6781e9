"""Context of a store: its database, limits and reads that all of its collections share."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable
from flowkit_mongo._blobs import Blobs
from flowkit_mongo._calls import Calls
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._database import Database, Document
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._documents import Read, blob_of

K = TypeVar("K")
T = TypeVar("T")

TRIES = 5


@dataclass(frozen=True, slots=True)
class Context:
    """A connected database with FlowKit's namespace and configuration."""

    database: Database
    calls: Calls
    blobs: Blobs
    namespace: str
    config: MongoConfig

    def name(self, collection: str) -> str:
        """Return the full name of a collection."""
        return f"{self.namespace}_{collection}"

    def check_size(self, size: int, subject: str, *values: object) -> None:
        """Refuse a record that is above the configured limit.

        ``subject`` says what it is, with a ``{}`` for each of the ``values``.

        Raises:
            RecordTooLarge: it is.
        """
        limit = self.config.max_record_bytes
        if size > limit:
            raise RecordTooLarge(
                f"{subject.format(*values)} has {size} bytes; the limit is {limit}"
                " (max_record_bytes)"
            )

    async def server_time(self) -> float:
        """Return the primary's clock; a mock has the clock of its process."""
        if not self.database.driver.has_server:
            return time.time()
        hello = await self.calls.patiently(lambda: self.database.handle.command("hello"))
        at: datetime = hello["localTime"]
        return at.replace(tzinfo=UTC).timestamp()

    async def find(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return the matching documents of a collection."""
        return await self.calls.patiently(
            lambda: self.database.find(self.name(collection), where, fields, **options)
        )

    async def delete(self, collection: str, where: Mapping[str, Any]) -> int:
        """Delete the matching documents and return their number."""
        result = await self.calls.patiently(
            lambda: self.database.handle[self.name(collection)].delete_many(where)
        )
        return int(result.deleted_count)

    async def read(
        self,
        collection: str,
        where: Mapping[str, Any],
        *,
        values: Callable[[Document], Sequence[object]],
        decode: Callable[[Document, Read], T],
        unreadable: Callable[[Document, str], T],
        **options: Any,
    ) -> list[T]:
        """Return matching documents with their blobs, each as of one moment.

        ``unreadable`` makes a result of a document that cannot be decoded and of the reason, so
        that it does not hide other documents.

        Raises:
            StoreUnavailable: at each try, a blob was replaced before it could be read.
        """
        shape = SHAPES[collection]
        missed: set[str] = set()
        for _ in range(TRIES):
            documents = await self.find(collection, where, **options)
            faults = [shape.fault(document) for document in documents]
            fetched = await self.blobs.fetch(
                value
                for document, fault in zip(documents, faults, strict=True)
                if fault is None
                for value in values(document)
            )
            # A blob is missing because its document has changed, unless the document, read again,
            # still points at it.
            if fetched.missing <= missed:
                break
            missed = fetched.missing
        else:
            raise StoreUnavailable(
                f"documents of {self.name(collection)} change faster than they can be read"
            )
        found = []
        for document, fault in zip(documents, faults, strict=True):
            if fault is None and fetched.missing:
                fault = _missing_blob(document, values(document), fetched.missing)
            found.append(
                decode(document, fetched.read) if fault is None else unreadable(document, fault)
            )
        return found


def corrupt(document: Document, fault: str) -> CorruptRecord:
    """Return the error of a document that cannot be decoded, for reads of its task alone."""
    return CorruptRecord(f"the record {document['_id']!r:.200} cannot be read: {fault}")


def sound(found: Sequence[T | CorruptRecord]) -> list[T]:
    """Return the records before the first that cannot be decoded.

    Raises:
        CorruptRecord: the first record cannot be decoded.
    """
    before: list[T] = []
    for item in found:
        if isinstance(item, CorruptRecord):
            if not before:
                raise item
            break
        before.append(item)
    return before


def _missing_blob(
    document: Document, values: Sequence[object], missing: Collection[str]
) -> str | None:
    """Return the fault of a document that points at a missing blob."""
    blob_id = next((blob_id for value in values if (blob_id := blob_of(value)) in missing), None)
    if blob_id is None:
        return None
    return (
        f"document {document['_id']!r:.200} points at blob {blob_id!r}, which does not exist or is"
        " damaged"
    )


async def none_missed(
    keys: Collection[K], read: Callable[..., Awaitable[dict[K, T]]]
) -> dict[K, T]:
    """Return what ``read`` finds, after a second read with ``latest`` for keys it does not find."""
    found = await read(keys)
    if missing := [key for key in keys if key not in found]:
        found |= await read(missing, latest=True)
    return found
