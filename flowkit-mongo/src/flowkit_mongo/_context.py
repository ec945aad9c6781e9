"""What the parts of a store share."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from flowkit.errors import CorruptRecord, StoreUnavailable
from flowkit_mongo._blobs import Blobs
from flowkit_mongo._calls import Calls
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._documents import Read, blob_of
from flowkit_mongo._driver import Document, Driver, Kind

K = TypeVar("K")
T = TypeVar("T")

TRIES = 5


@dataclass(frozen=True, slots=True)
class Context:
    """A connected database, and how FlowKit uses it."""

    driver: Driver
    calls: Calls
    blobs: Blobs
    namespace: str
    config: MongoConfig

    def name(self, collection: str) -> str:
        return f"{self.namespace}_{collection}"

    async def server_time(self) -> float:
        """Return the primary's clock; a mock has that of its process."""
        if self.driver.kind is Kind.MOCK:
            return time.time()
        hello = await self.calls.patiently(lambda: self.driver.database.command("hello"))
        at: datetime = hello["localTime"]
        return at.replace(tzinfo=UTC).timestamp()

    async def find(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> list[Document]:
        """Matching documents of a collection."""
        return await self.calls.patiently(
            lambda: self.driver.find(self.name(collection), where, fields, **how)
        )

    async def delete(self, collection: str, where: Mapping[str, Any]) -> int:
        result = await self.calls.patiently(
            lambda: self.driver.database[self.name(collection)].delete_many(where)
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
        **how: Any,
    ) -> list[T]:
        """Matching documents with the blobs they point at, each as of one moment.

        A document that cannot be decoded is what ``unreadable`` makes of it and of the reason, so
        that it hides no other.

        Raises:
            StoreUnavailable: with every look, another blob was replaced before it could be read.
        """
        shape = SHAPES[collection]
        missed: set[str] = set()
        for _ in range(TRIES):
            documents = await self.find(collection, where, **how)
            faults = [shape.fault(document) for document in documents]
            readable = [
                document for document, fault in zip(documents, faults, strict=True) if fault is None
            ]
            read, missing = await self.blobs.fetch(
                value for document in readable for value in values(document)
            )
            # A blob that is missing was deleted when its document changed, unless the document,
            # read again, still points at it.
            if missing <= missed:
                break
            missed = missing
        else:
            raise StoreUnavailable(
                f"documents of {self.name(collection)} change faster than they can be read"
            )
        found = []
        for document, fault in zip(documents, faults, strict=True):
            if fault is None and missing:
                fault = _missing_fault(document, values(document), missing)
            found.append(decode(document, read) if fault is None else unreadable(document, fault))
        return found


def corrupt(document: Document, fault: str) -> CorruptRecord:
    """The error of a document that cannot be decoded, for a read that is about its task alone."""
    return CorruptRecord(f"the record {document['_id']!r:.200} cannot be read: {fault}")


def sound(found: Sequence[T | CorruptRecord]) -> list[T]:
    """The records before the first that cannot be decoded.

    Raises:
        CorruptRecord: the first is one that cannot be.
    """
    before: list[T] = []
    for item in found:
        if isinstance(item, CorruptRecord):
            if not before:
                raise item
            break
        before.append(item)
    return before


def _missing_fault(
    document: Document, values: Sequence[object], missing: Collection[str]
) -> str | None:
    blob_id = next((blob_id for value in values if (blob_id := blob_of(value)) in missing), None)
    return (
        None
        if blob_id is None
        else (
            f"document {document['_id']!r:.200} points at blob {blob_id!r}, which does not exist or"
            " is damaged"
        )
    )


async def none_missed(
    keys: Collection[K], read: Callable[..., Awaitable[dict[K, T]]]
) -> dict[K, T]:
    """What ``read(keys)`` finds, and of what it does not find, what ``read(keys, latest=True)``
    does.
    """
    found = await read(keys)
    if missing := [key for key in keys if key not in found]:
        found |= await read(missing, latest=True)
    return found
