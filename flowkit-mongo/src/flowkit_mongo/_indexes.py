"""The indexes, as data, and their creation.

Every query of the package is answered from one of these or from ``_id``; a test reads the server's
plans.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel

from flowkit_mongo._driver import Driver, Kind

SESSION_RETENTION_SEC = 86_400
"""A session nobody renewed for so long is forgotten by the server: its worker was killed without
saying good-bye.
"""

Keys = tuple[tuple[str, int], ...]


def present(name: str) -> dict[str, Any]:
    """Only documents that have the field are in the index."""
    return {name: {"$exists": True}}


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the collection ``{namespace}_{collection}``."""

    collection: str
    name: str
    keys: Keys
    unique: bool = False
    partial: Mapping[str, Any] = field(default_factory=dict)
    expire_after_sec: int | None = None

    def model(self, kind: Kind) -> IndexModel:
        options: dict[str, Any] = {}
        if self.unique:
            options["unique"] = True
        if self.partial and kind is Kind.MOCK:
            options["sparse"] = (
                True  # the mock takes a partial unique index for one over all documents
            )
        elif self.partial:
            options["partialFilterExpression"] = dict(self.partial)
        if self.expire_after_sec is not None:
            options["expireAfterSeconds"] = self.expire_after_sec
        return IndexModel(list(self.keys), name=self.name, **options)


NEWEST_FIRST: Keys = (("created_at", DESCENDING), ("_id", DESCENDING))

INDEXES: tuple[Index, ...] = (
    Index(
        "tasks",
        "idempotency",
        (("idempotency_key", ASCENDING),),
        unique=True,
        partial=present("idempotency_key"),
    ),
    Index("tasks", "due", (("wake_at", ASCENDING), ("_id", ASCENDING)), partial=present("wake_at")),
    Index("tasks", "ended", (("finished_at", ASCENDING),), partial=present("finished_at")),
    Index("tasks", "newest", NEWEST_FIRST),
    Index("tasks", "status", (("status", ASCENDING), *NEWEST_FIRST)),
    Index(
        "tasks", "pipeline", (("pipeline", ASCENDING), *NEWEST_FIRST), partial=present("pipeline")
    ),
    Index("tasks", "labels", (("labels", ASCENDING), *NEWEST_FIRST), partial=present("labels")),
    Index(
        "artifacts",
        "stream",
        (
            ("task_id", ASCENDING),
            ("node_id", ASCENDING),
            ("generation", ASCENDING),
            ("position", ASCENDING),
        ),
        unique=True,
    ),
    Index(
        "artifacts",
        "made",
        (("task_id", ASCENDING), ("created_at", ASCENDING), ("order", ASCENDING)),
    ),
    Index(
        "workers", "silent", (("renewed_at", ASCENDING),), expire_after_sec=SESSION_RETENTION_SEC
    ),
    Index(
        "dead_letters",
        "task",
        (("task_id", ASCENDING), ("_id", ASCENDING)),
        partial=present("task_id"),
    ),
    Index("dead_letters", "kind", (("kind", ASCENDING), ("_id", ASCENDING))),
    Index("purged", "at", (("at", ASCENDING),)),
    # The first two are those that GridFS itself asks for.
    Index(
        "blobs.files",
        "filename_1_uploadDate_1",
        (("filename", ASCENDING), ("uploadDate", ASCENDING)),
    ),
    Index(
        "blobs.chunks", "files_id_1_n_1", (("files_id", ASCENDING), ("n", ASCENDING)), unique=True
    ),
    Index(
        "blobs.files",
        "owner",
        (
            ("metadata.task_id", ASCENDING),
            ("metadata.use", ASCENDING),
            ("metadata.version", ASCENDING),
        ),
    ),
    Index("blobs.files", "uploaded", (("uploadDate", ASCENDING),)),
)


async def missing_indexes(driver: Driver, namespace: str) -> list[Index]:
    """Those that the database does not have."""
    there = {
        name: await driver.database[f"{namespace}_{name}"].index_information()
        for name in {index.collection for index in INDEXES}
    }
    return [index for index in INDEXES if index.name not in there[index.collection]]


async def create_indexes(driver: Driver, namespace: str) -> None:
    """Create what is missing. Where nothing is, reading rights are enough."""
    wanted: dict[str, list[IndexModel]] = {}
    for index in await missing_indexes(driver, namespace):
        wanted.setdefault(index.collection, []).append(index.model(driver.kind))
    for name, models in wanted.items():
        await driver.database[f"{namespace}_{name}"].create_indexes(models)
