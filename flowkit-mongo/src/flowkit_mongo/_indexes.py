"""Indexes of the collections, and their creation.

Every query of the package uses one of these or ``_id``; a test reads the server's query plans.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from flowkit_mongo._database import Database
from flowkit_mongo._drivers import Driver

Keys = tuple[tuple[str, int], ...]


def present(name: str) -> dict[str, Any]:
    """Return the condition that only documents with this field are in the index."""
    return {name: {"$exists": True}}


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the collection ``{namespace}_{collection}``."""

    collection: str
    name: str
    keys: Keys
    unique: bool = False
    partial: Mapping[str, Any] = field(default_factory=dict)

    def model(self, driver: Driver) -> IndexModel:
        """Return the index in the form that a driver takes."""
        options: dict[str, Any] = {}
        if self.unique:
            options["unique"] = True
        if self.partial and not driver.has_server:
            options["sparse"] = True
        elif self.partial:
            options["partialFilterExpression"] = dict(self.partial)
        return IndexModel(list(self.keys), name=self.name, **options)


def ascending(*fields: str) -> Keys:
    """Return the keys of an index in ascending order."""
    return tuple((name, ASCENDING) for name in fields)


NEWEST_FIRST: Keys = (("created_at", DESCENDING), ("_id", DESCENDING))
OLDEST_FIRST: Keys = (("created_at", ASCENDING), ("_id", ASCENDING))
"""Order of a list. MongoDB reads the same indexes backwards for it."""

_KEY = ascending("idempotency_key")
_STREAM = ascending("task_id", "node_id", "generation", "position")
_OWNER = ascending("metadata.task_id", "metadata.use", "metadata.version")

INDEXES: tuple[Index, ...] = (
    Index("tasks", "idempotency", _KEY, unique=True, partial=present("idempotency_key")),
    Index("tasks", "due", ascending("wake_at", "_id"), partial=present("wake_at")),
    Index("tasks", "ended", ascending("finished_at"), partial=present("finished_at")),
    Index("tasks", "newest", NEWEST_FIRST),
    Index("tasks", "status", ascending("status") + NEWEST_FIRST),
    Index("tasks", "pipeline", ascending("pipeline") + NEWEST_FIRST, partial=present("pipeline")),
    Index("tasks", "labels", ascending("labels") + NEWEST_FIRST, partial=present("labels")),
    Index("tasks", "tags", ascending("tags") + NEWEST_FIRST, partial=present("tags")),
    Index("artifacts", "stream", _STREAM, unique=True),
    Index("artifacts", "made", ascending("task_id", "created_at", "order")),
    Index("records", "due", ascending("_id.kind", "due_at", "_id"), partial=present("due_at")),
    Index("records", "task", ascending("task_id"), partial=present("task_id")),
    Index("records", "gone", ascending("gone"), partial=present("gone")),
    Index("record_changes", "committed", ascending("committed"), partial=present("committed")),
    Index("record_changes", "at", ascending("at")),
    Index("purged", "at", ascending("at")),
    # GridFS itself requires the first two.
    Index("blobs.files", "filename_1_uploadDate_1", ascending("filename", "uploadDate")),
    Index("blobs.chunks", "files_id_1_n_1", ascending("files_id", "n"), unique=True),
    Index("blobs.files", "owner", _OWNER),
    Index("blobs.files", "uploaded", ascending("uploadDate")),
)


async def missing_indexes(database: Database, namespace: str) -> list[Index]:
    """Return the indexes that the database does not have."""
    existing = {
        name: await database.handle[f"{namespace}_{name}"].index_information()
        for name in {index.collection for index in INDEXES}
    }
    return [index for index in INDEXES if index.name not in existing[index.collection]]


async def create_indexes(database: Database, namespace: str) -> None:
    """Create the missing indexes; if none is missing, the right to read them is enough."""
    wanted: dict[str, list[IndexModel]] = {}
    for index in await missing_indexes(database, namespace):
        wanted.setdefault(index.collection, []).append(index.model(database.driver))
    for name, models in wanted.items():
        await database.handle[f"{namespace}_{name}"].create_indexes(models)
