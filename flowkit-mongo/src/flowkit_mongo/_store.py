"""The store on MongoDB."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import anyio

from flowkit.adapters import Lifecycle
from flowkit.errors import ConfigError, StoreError
from flowkit.protocols import (
    ArtifactStore,
    CheckResult,
    Commit,
    DamagedRecord,
    RecordStore,
    TaskQuery,
    TaskRecord,
)
from flowkit_mongo._archive import Archive
from flowkit_mongo._artifacts import MongoArtifactStore
from flowkit_mongo._blobs import Blobs
from flowkit_mongo._calls import Calls, bounded
from flowkit_mongo._cancellation import repair_waits
from flowkit_mongo._changes import Changes, State
from flowkit_mongo._commits import Commits
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._context import Context
from flowkit_mongo._damaged_records import damaged_records
from flowkit_mongo._database import Database, open_address
from flowkit_mongo._doctor import diagnose
from flowkit_mongo._drivers import PYMONGO, driver_of, is_address
from flowkit_mongo._errors import translated
from flowkit_mongo._indexes import create_indexes
from flowkit_mongo._keyed_records import MongoRecordStore
from flowkit_mongo._layout import check_layout
from flowkit_mongo._marked_changes import MarkedChanges
from flowkit_mongo._retention import Retention
from flowkit_mongo._tasks import Tasks

CLOSE_SEC = 2.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of an open store."""

    context: Context
    archive: Archive
    tasks: Tasks
    commits: Commits
    retention: Retention
    changes: Changes


class MongoStore:
    """A :class:`~flowkit.protocols.Store` in a MongoDB database.

    ``source`` is an address (``mongodb://host/name``; the default database is ``flowkit``) or a
    database of Motor, PyMongo's async API or mongomock-motor. On leaving, the store closes a client
    that it opened from an address; the client of a given database stays open.
    """

    artifacts: ArtifactStore
    records: RecordStore

    def __init__(
        self, source: Any, *, namespace: str = "flowkit", config: MongoConfig | None = None
    ) -> None:
        """Prepare to use the collections ``{namespace}_…``.

        Raises:
            ConfigError: ``source`` is neither an address nor a database of a known driver.
        """
        driver = PYMONGO if is_address(source) else driver_of(source)
        if driver is None:
            raise ConfigError(
                f"db: {type(source).__qualname__} is neither a mongodb:// address nor an"
                " asynchronous MongoDB database"
            )
        self._source, self._driver, self._namespace = source, driver, namespace
        self._config = config or MongoConfig()
        self._client: Any = None
        self._life = Lifecycle[_Parts]("this store", error=StoreError)

    async def __aenter__(self) -> Self:
        self._life.check_not_open()
        repair_waits()
        try:
            with translated():
                handle = self._open_database()
            self._life.open(await self._connect(Database(handle, self._driver, self._config)))
        except BaseException:
            await self._close()
            raise
        return self

    def _open_database(self) -> Any:
        if not is_address(self._source):
            return self._source
        database = open_address(self._source, self._config)
        self._client = database.client
        return database

    async def _connect(self, database: Database) -> _Parts:
        config, calls = self._config, Calls(self._config)
        blobs = Blobs(database, calls, self._namespace, config)
        context = Context(database, calls, blobs, self._namespace, config)
        archive, tasks = Archive(context), Tasks(context)
        self.artifacts = artifacts = MongoArtifactStore(context)
        steps = MarkedChanges(context)
        self.records = MongoRecordStore(context, steps)
        await check_layout(context)
        await calls.patiently(lambda: create_indexes(database, self._namespace))
        return _Parts(
            context=context,
            archive=archive,
            tasks=tasks,
            commits=Commits(context, archive),
            retention=Retention(context, forget=artifacts.forget, marked_changes=steps),
            changes=Changes(
                tasks.states,
                min_sec=config.change_poll_min_ms / 1000,
                max_sec=config.change_poll_max_ms / 1000,
            ),
        )

    async def __aexit__(self, *exc: object) -> None:
        self._life.close()
        await self._close()

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with anyio.CancelScope(shield=True), suppress(TimeoutError):
            try:
                await bounded(client.close(), CLOSE_SEC)
            except TimeoutError:
                # The driver waited for a server on which to end its sessions. It does so only once:
                # the second call closes its connections.
                await bounded(client.close(), CLOSE_SEC)

    # ------------------------------------------------------------ tasks

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        return await self._life.resource.tasks.create(records) if records else []

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        return await self._life.resource.tasks.load(task_ids)

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        parts = self._life.resource
        applied = await parts.commits.apply(commits)
        parts.changes.committed(
            (commit.task_id, State(commit.expected_version + 1, commit.finished_at is not None))
            for commit, was_applied in zip(commits, applied, strict=True)
            if was_applied
        )
        return applied

    async def read_archive(self, task_id: str, names: Collection[str]) -> dict[str, bytes]:
        return await self._life.resource.archive.read(task_id, names)

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        return await self._life.resource.archive.scan(
            task_id, prefix=prefix, after=after, limit=limit
        )

    async def due(self, *, before: float, limit: int) -> list[str]:
        return await self._life.resource.tasks.due(before=before, limit=limit)

    async def list_tasks(self, query: TaskQuery) -> tuple[list[TaskRecord], str | None]:
        return await self._life.resource.tasks.list(query)

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        await self._life.resource.changes.wait(task_id, version, ended=ended)

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        retention = self._life.resource.retention
        return await retention.purge(finished_before=finished_before, limit=limit)

    # ------------------------------------------------------------ health

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        search = await damaged_records(self._life.resource.context, limit=limit)
        return search.records

    async def server_time(self) -> float:
        return await self._life.resource.context.server_time()

    async def check(self) -> list[CheckResult]:
        return await diagnose(self._life.resource.context)
