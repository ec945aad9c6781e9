"""A store on MongoDB."""

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
    DeadLetter,
    TaskQuery,
    TaskRecord,
    WorkerSession,
)
from flowkit_mongo._archive import Archive
from flowkit_mongo._artifacts import MongoArtifactStore
from flowkit_mongo._blobs import Blobs
from flowkit_mongo._calls import Calls, bounded
from flowkit_mongo._changes import Changes
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._context import Context
from flowkit_mongo._damaged_records import damaged_records
from flowkit_mongo._doctor import diagnose
from flowkit_mongo._driver import Driver, Kind, is_address, kind_of, open_address
from flowkit_mongo._errors import translated
from flowkit_mongo._indexes import create_indexes
from flowkit_mongo._retention import Purging
from flowkit_mongo._sessions_and_letters import DeadLetters, Sessions
from flowkit_mongo._tasks import Tasks

CLOSE_SEC = 2.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of an open store."""

    context: Context
    archive: Archive
    tasks: Tasks
    sessions: Sessions
    letters: DeadLetters
    purging: Purging
    changes: Changes


class MongoStore:
    """A :class:`~flowkit.protocols.Store` in a MongoDB database.

    ``source`` is an address (``mongodb://host/name``; the database is ``flowkit`` if it names none)
    or a database of Motor, PyMongo's async API or mongomock-motor. A client that is opened from an
    address is closed on leaving; a database that was given stays open.
    """

    artifacts: ArtifactStore

    def __init__(
        self, source: Any, *, namespace: str = "flowkit", config: MongoConfig | None = None
    ) -> None:
        """Prepare to use the collections ``{namespace}_…``.

        Raises:
            ConfigError: ``source`` is neither an address nor a database of a driver that is known.
        """
        if not is_address(source) and kind_of(source) is None:
            raise ConfigError(
                f"{type(source).__qualname__} is neither a mongodb:// address nor an asynchronous"
                " MongoDB database"
            )
        self._source, self._namespace = source, namespace
        self._config = config or MongoConfig()
        self._client: Any = None
        self._life = Lifecycle[_Parts]("this store", error=StoreError)

    async def __aenter__(self) -> Self:
        self._life.check_not_open()
        with translated():
            if is_address(self._source):
                self._client, database = open_address(self._source, self._config)
                kind: Kind | None = Kind.PYMONGO
            else:
                database, kind = self._source, kind_of(self._source)
        if kind is None:
            raise ConfigError("the database is of no known driver")
        try:
            self._life.open(await self._connect(Driver(database, kind, self._config)))
        except BaseException:
            await self._close()
            raise
        return self

    async def _connect(self, driver: Driver) -> _Parts:
        config, calls = self._config, Calls(self._config)
        blobs = Blobs(driver, calls, self._namespace, config)
        context = Context(driver, calls, blobs, self._namespace, config)
        archive = Archive(context)
        tasks = Tasks(context, archive)
        self.artifacts = artifacts = MongoArtifactStore(context)
        await calls.patiently(lambda: create_indexes(driver, self._namespace))
        return _Parts(
            context=context,
            archive=archive,
            tasks=tasks,
            sessions=Sessions(context),
            letters=DeadLetters(context),
            purging=Purging(context, forget=artifacts.forget),
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
                # The driver looked for a server to end its sessions on. It does so once: now it
                # closes its connections.
                await bounded(client.close(), CLOSE_SEC)

    # ------------------------------------------------------------ tasks

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        return await self._life.resource.tasks.create(records) if records else []

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        return await self._life.resource.tasks.load(task_ids)

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        applied = await self._life.resource.tasks.commit(commits)
        self._life.resource.changes.committed(
            (commit.task_id, (commit.expected_version + 1, commit.finished_at is not None))
            for commit, won in zip(commits, applied, strict=True)
            if won
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
        return await self._life.resource.purging.purge(finished_before=finished_before, limit=limit)

    # ------------------------------------------------------------ workers and dead letters

    async def renew_session(self, session: WorkerSession) -> WorkerSession | None:
        return await self._life.resource.sessions.renew(session)

    async def end_session(self, worker_id: str) -> None:
        await self._life.resource.sessions.end(worker_id)

    async def sessions(self) -> list[WorkerSession]:
        return await self._life.resource.sessions.all()

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        await self._life.resource.letters.park(letters)

    async def dead_letters(
        self,
        *,
        task_id: str | None = None,
        kind: str | None = None,
        letter_ids: Collection[str] | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[DeadLetter]:
        return await self._life.resource.letters.read(
            task_id=task_id, kind=kind, letter_ids=letter_ids, after=after, limit=limit
        )

    async def drop_dead_letters(self, letter_ids: Collection[str]) -> int:
        return await self._life.resource.letters.drop(letter_ids)

    # ------------------------------------------------------------ health

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        found, _ = await damaged_records(self._life.resource.context, limit=limit)
        return found

    async def server_time(self) -> float:
        return await self._life.resource.context.server_time()

    async def check(self) -> list[CheckResult]:
        return await diagnose(self._life.resource.context)
