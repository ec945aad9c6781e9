"""The one module that knows which driver there is: Motor, PyMongo's async API, or
mongomock-motor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import ReadPreference, UpdateOne, WriteConcern
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from flowkit.errors import ConfigError
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._errors import duplicates

DEFAULT_DATABASE = "flowkit"
SCHEMES = ("mongodb://", "mongodb+srv://")

BATCH = 10_000
NOT_A_REPLICA_SET = 123
"""Documents of one answer, which the server ends at 16 MB; by default it would send the first
hundred and want to be asked again.
"""

ANYTHING: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="surrogateescape",
)
"""How answers are decoded. A date that Python cannot express, or text that is not UTF-8, does not
hide the other documents of an answer.
"""

Document = dict[str, Any]


class Kind(Enum):
    """A driver, by the module of its database class. mongomock-motor's class says that it is
    Motor's as well, so it comes first.
    """

    MOCK = "mongomock_motor"
    MOTOR = "motor.motor_asyncio"
    PYMONGO = "pymongo.asynchronous.database"


def kind_of(source: object) -> Kind | None:
    """The driver that a database object belongs to. Looks at names only, so that none need be
    installed.
    """
    classes = type(source).__mro__
    if not any(cls.__name__.endswith("Database") for cls in classes):
        return None
    modules = {cls.__module__ for cls in classes}
    return next((kind for kind in Kind if kind.value in modules), None)


def is_address(source: object) -> bool:
    return isinstance(source, str) and source.startswith(SCHEMES)


def open_address(address: str, config: MongoConfig) -> tuple[Any, Any]:
    """A PyMongo async client for an address and the database it names. What stands in the address
    wins over the configuration.
    """
    from pymongo import AsyncMongoClient

    options: dict[str, Any] = {
        "appname": "flowkit",
        "serverSelectionTimeoutMS": config.server_selection_timeout_ms,
        "connectTimeoutMS": config.connect_timeout_ms,
        "maxPoolSize": config.max_pool_size,
    }
    given = {name.lower() for name in parse_qs(urlsplit(address).query, keep_blank_values=True)}
    try:
        client: Any = AsyncMongoClient(
            address, **{name: value for name, value in options.items() if name.lower() not in given}
        )
    except ValueError as error:
        raise ConfigError(f"not an address of MongoDB: {error}") from None
    return client, client.get_default_database(DEFAULT_DATABASE)


@dataclass(frozen=True, slots=True)
class Change:
    """An update of at most one document."""

    where: Document
    update: Document
    upsert: bool = False


class Driver:
    """A database through any of the drivers: majority reads from the primary, journalled majority
    writes.
    """

    def __init__(self, database: Any, kind: Kind, config: MongoConfig) -> None:
        self.kind = kind
        self._alone = kind is Kind.MOCK
        """There is no other server that could have taken over."""
        self.write_concern = WriteConcern(w="majority", j=True, wtimeout=config.write_timeout_ms)
        if kind is Kind.MOCK:
            self.database = database
        else:
            self.database = database.with_options(
                codec_options=ANYTHING,
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=self.write_concern,
            )

    @property
    def has_blobs(self) -> bool:
        """Whether large payloads can be stored beside their documents; a mock has no limit on a
        document instead.
        """
        return self.kind is not Kind.MOCK

    def newest(self, name: str) -> Any:
        """A collection read with what the primary has, confirmed by the majority or not."""
        return (
            self.database[name]
            if self.kind is Kind.MOCK
            else self.database.get_collection(name, read_concern=ReadConcern("local"))
        )

    def bucket(self, name: str) -> Any:
        """A GridFS bucket."""
        if self.kind is Kind.MOTOR:
            from motor.motor_asyncio import AsyncIOMotorGridFSBucket

            return AsyncIOMotorGridFSBucket(
                self.database, bucket_name=name, write_concern=self.write_concern
            )
        from gridfs.asynchronous import AsyncGridFSBucket

        return AsyncGridFSBucket(self.database, bucket_name=name, write_concern=self.write_concern)

    async def insert(
        self, name: str, documents: Sequence[Document], *, ordered: bool = False
    ) -> set[int]:
        """Insert, and say which found a key of theirs taken. Where ``ordered``, none after the
        first of these was inserted.
        """
        try:
            await self.database[name].insert_many(documents, ordered=ordered)
        except BulkWriteError as error:
            taken = duplicates(error)
            if taken is None:
                raise
            return taken
        return set()

    async def change(self, name: str, changes: Sequence[Change]) -> int:
        """Update in no particular order, and say how many documents matched. An upsert whose key is
        taken does nothing.
        """
        collection = self.database[name]
        if self.kind is Kind.MOCK or len(changes) == 1:
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

    async def replace(self, name: str, change: Change) -> Document | None:
        """Update one document and return it as it was before; None if it was inserted."""
        try:
            found: Document | None = await self._replace(name, change)
        except DuplicateKeyError:
            # Another inserted it at the same moment: now there is one to update.
            found = await self._replace(name, change)
        return found

    async def _replace(self, name: str, change: Change) -> Document | None:
        found: Document | None = await self.database[name].find_one_and_update(
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
        """Matching documents. With ``latest`` also those that were confirmed just before, wherever.

        A primary that has just been elected shows for a moment less than the one before it had
        confirmed, and one that was suspended does not know that it is none any more. A linearizable
        read waits until the majority agrees that it is the primary.
        """
        collection = self.database[name]
        if latest and not self._alone:
            collection = collection.with_options(read_concern=ReadConcern("linearizable"))
        try:
            return await self._find(collection, where, fields, sort=sort, limit=limit)
        except OperationFailure as error:
            if not latest or error.code != NOT_A_REPLICA_SET:
                raise
            self._alone = True
            return await self._find(self.database[name], where, fields, sort=sort, limit=limit)

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
