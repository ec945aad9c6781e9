"""A database with FlowKit's read and write concerns, through any of the drivers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import AsyncMongoClient, ReadPreference, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from flowkit.errors import ConfigError
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._drivers import Driver
from flowkit_mongo._errors import duplicates

DEFAULT_DATABASE = "flowkit"

BATCH = 10_000
"""Documents of one answer, which the server limits to 16 MB.

By default, the server sends the first hundred and waits for another request.
"""

MOST_RANGES = 50
"""Ranges of ids that are read in one call, because a pipeline has at most a thousand stages."""

NOT_A_REPLICA_SET = 123

ANYTHING: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="surrogateescape",
)
"""Decoding of answers.

A date outside of Python's range, or text that is not UTF-8, does not hide the other documents of an
answer.
"""

Document = dict[str, Any]


def open_address(address: str, config: MongoConfig) -> Any:
    """Return the database at an address, of a new client.

    Options in the address override the configuration.

    Raises:
        ConfigError: the address is invalid.
    """
    options: dict[str, Any] = {
        "appname": "flowkit",
        "serverSelectionTimeoutMS": config.server_selection_timeout_ms,
        "connectTimeoutMS": config.connect_timeout_ms,
        "maxPoolSize": config.max_pool_size,
    }
    given = {name.lower() for name in parse_qs(urlsplit(address).query, keep_blank_values=True)}
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            address, **{name: value for name, value in options.items() if name.lower() not in given}
        )
    except ValueError as error:
        raise ConfigError(f"invalid MongoDB address: {error}") from None
    return client.get_default_database(DEFAULT_DATABASE)


@dataclass(frozen=True, slots=True)
class Change:
    """An update of at most one document."""

    where: Document
    update: Document
    upsert: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """The first documents of a range of ids."""

    where: Document
    limit: int
    order: int
    """1 for the order of the ids, -1 for the opposite."""


class Database:
    """A database with majority reads from the primary and journalled majority writes."""

    def __init__(self, handle: Any, driver: Driver, config: MongoConfig) -> None:
        self.driver = driver
        self._standalone = not driver.has_server
        """True if no other server can have taken over as primary."""
        self.write_concern = WriteConcern(w="majority", j=True, wtimeout=config.write_timeout_ms)
        self.handle = handle
        """The driver's database."""
        if driver.has_server:
            self.handle = handle.with_options(
                codec_options=ANYTHING,
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=self.write_concern,
            )

    @property
    def has_blobs(self) -> bool:
        """Whether it has GridFS; without it, large payloads stay in their documents."""
        return self.driver.bucket_class is not None

    def bucket(self, name: str) -> Any:
        """Return a GridFS bucket."""
        return self.driver.bucket(self.handle, name, self.write_concern)

    def newest(self, name: str) -> Any:
        """Return a collection whose reads include what the majority has not confirmed yet."""
        if not self.driver.has_server:
            return self.handle[name]
        return self.handle.get_collection(name, read_concern=ReadConcern("local"))

    async def insert(
        self, name: str, documents: Sequence[Document], *, ordered: bool = False
    ) -> set[int]:
        """Insert documents and return the indexes of those whose key was taken.

        With ``ordered``, no document after the first of these was inserted.
        """
        try:
            await self.handle[name].insert_many(documents, ordered=ordered)
        except BulkWriteError as error:
            taken = duplicates(error)
            if taken is None:
                raise
            return taken
        return set()

    async def change(self, name: str, changes: Sequence[Change]) -> int:
        """Apply changes in any order and return the number of documents that matched.

        An upsert whose key is taken has no effect.
        """
        collection = self.handle[name]
        if not self.driver.has_server or len(changes) == 1:
            return sum([await self._change_one(collection, change) for change in changes])
        writes = [
            UpdateOne(change.where, change.update, upsert=change.upsert) for change in changes
        ]
        try:
            result = await collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            if duplicates(error) is None:
                raise
            return int((error.details or {}).get("nMatched", 0))
        return int(result.matched_count)

    async def _change_one(self, collection: Any, change: Change) -> int:
        try:
            result = await collection.update_one(change.where, change.update, upsert=change.upsert)
        except DuplicateKeyError:
            if not change.upsert:
                raise
            return 0
        return int(result.matched_count)

    async def delete_one(self, name: str, where: Document) -> int:
        """Delete at most one document, and return the number of deleted ones."""
        return int((await self.handle[name].delete_one(where)).deleted_count)

    async def replace(self, name: str, change: Change) -> Document | None:
        """Change one document and return its previous state; None if it was inserted."""
        try:
            return await self._replace(name, change)
        except DuplicateKeyError:
            # Another process inserted it at the same moment: now it can be changed.
            return await self._replace(name, change)

    async def _replace(self, name: str, change: Change) -> Document | None:
        found: Document | None = await self.handle[name].find_one_and_update(
            change.where, change.update, upsert=change.upsert
        )
        return found

    async def find(
        self,
        name: str,
        where: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        *,
        sort: Any = None,
        limit: int = 0,
        latest: bool = False,
    ) -> list[Document]:
        """Return matching documents; with ``latest``, all that any primary has confirmed.

        For a moment, a new primary shows less than its predecessor had confirmed, and a primary
        that was suspended does not know that it has been replaced. A linearizable read waits until
        the majority confirms that the server is the primary.
        """
        collection = self.handle[name]
        if latest and not self._standalone:
            collection = collection.with_options(read_concern=ReadConcern("linearizable"))
        try:
            return await self._find(collection, where, fields, sort=sort, limit=limit)
        except OperationFailure as error:
            if not latest or error.code != NOT_A_REPLICA_SET:
                raise
            self._standalone = True
            return await self._find(self.handle[name], where, fields, sort=sort, limit=limit)

    async def find_in(self, name: str, ranges: Sequence[Range]) -> list[list[Document]]:
        """Return the documents of each range in its order, in few calls."""
        if len(ranges) == 1 or not self.driver.has_server:
            return [
                await self.find(name, each.where, sort=[("_id", each.order)], limit=each.limit)
                for each in ranges
            ]
        found: list[list[Document]] = [[] for _ in ranges]
        for first in range(0, len(ranges), MOST_RANGES):
            part = range(first, min(first + MOST_RANGES, len(ranges)))
            start, *others = [_stages(number, ranges[number]) for number in part]
            unions = [{"$unionWith": {"coll": name, "pipeline": stages}} for stages in others]
            cursor = self.handle[name].aggregate([*start, *unions], batchSize=BATCH)
            if isawaitable(cursor):  # Motor's is not
                cursor = await cursor
            for answer in await cursor.to_list(None):
                found[answer["range"]].append(answer["document"])
        return found

    @staticmethod
    async def _find(
        collection: Any,
        where: Mapping[str, Any],
        fields: Mapping[str, Any] | None,
        *,
        sort: Any,
        limit: int,
    ) -> list[Document]:
        cursor = collection.find(where, fields, batch_size=BATCH)
        if sort:
            cursor = cursor.sort(sort)
        if limit:
            cursor = cursor.limit(limit)
        found: list[Document] = await cursor.to_list(None)
        return found


def _stages(number: int, wanted: Range) -> list[Document]:
    """Return the stages of a pipeline that find the documents of a range, with its number."""
    return [
        {"$match": wanted.where},
        {"$sort": {"_id": wanted.order}},
        {"$limit": wanted.limit},
        {"$replaceWith": {"range": number, "document": "$$ROOT"}},
    ]
