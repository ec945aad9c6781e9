"""What the parts of a store share."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flowkit.errors import StoreError
from flowkit_mongo._calls import Calls
from flowkit_mongo._driver import Document, Driver
from flowkit_mongo.blobs import Blobs
from flowkit_mongo.config import MongoConfig
from flowkit_mongo.documents import Read, check_version

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

    async def find(self, collection: str, where: Mapping[str, Any], fields: Mapping[str, Any] | None = None, **how: Any) -> list[Document]:
        """Matching documents of a collection."""
        return await self.calls.patiently(lambda: self.driver.find(self.name(collection), where, fields, **how))

    async def delete(self, collection: str, where: Mapping[str, Any]) -> int:
        result = await self.calls.patiently(lambda: self.driver.database[self.name(collection)].delete_many(where))
        return int(result.deleted_count)

    async def read(
        self,
        collection: str,
        where: Mapping[str, Any],
        *,
        values: Callable[[Document], Sequence[object]],
        decode: Callable[[Document, Read], T],
        faults: bool = False,
        **how: Any,
    ) -> list[T]:
        """Matching documents with the blobs they point at, each as of one moment.

        Where there may be ``faults``, a document that a later FlowKit wrote is for ``decode`` to refuse, and so is one that points
        at a blob that does not exist: its ``Read`` raises ``ValueError``.
        """
        for attempt in range(TRIES):
            documents = await self.find(collection, where, **how)
            if not faults:
                for document in documents:
                    check_version(document)
            last = attempt == TRIES - 1
            read = await self.blobs.fetch((value for document in documents for value in values(document)), missing=faults and last)
            if read is not None:
                return [decode(document, read) for document in documents]
        raise StoreError(f"a document of {self.name(collection)} points at a blob that does not exist")


async def none_missed(keys: Collection[K], read: Callable[..., Awaitable[dict[K, T]]]) -> dict[K, T]:
    """What ``read(keys)`` finds, and of what it does not find, what ``read(keys, latest=True)`` does."""
    found = await read(keys)
    if missing := [key for key in keys if key not in found]:
        found |= await read(missing, latest=True)
    return found
