"""The store in an SQLite file."""

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

from flowkit.adapters import Lifecycle
from flowkit.errors import StoreError
from flowkit.protocols import (
    ArtifactStore,
    CheckResult,
    Commit,
    DamagedRecord,
    RecordStore,
    TaskQuery,
    TaskRecord,
)
from flowkit_sqlite._address import file_of
from flowkit_sqlite._archive import Archive
from flowkit_sqlite._artifacts import SqliteArtifactStore
from flowkit_sqlite._changes import Changes
from flowkit_sqlite._commits import Commits
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._context import Context
from flowkit_sqlite._damaged_records import damaged_records
from flowkit_sqlite._database import Database
from flowkit_sqlite._doctor import diagnose
from flowkit_sqlite._keyed_records import SqliteRecordStore
from flowkit_sqlite._retention import Retention
from flowkit_sqlite._schema import create_tables, has_tables
from flowkit_sqlite._tasks import Tasks


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of an open store."""

    stack: AsyncExitStack
    context: Context
    tasks: Tasks
    commits: Commits
    archive: Archive
    changes: Changes
    retention: Retention


class SqliteStore:
    """A :class:`~flowkit.protocols.Store` in an SQLite file, which other processes may use too.

    ``address`` is ``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``. The folder of
    the file must exist. The file is created if it does not exist.
    """

    artifacts: ArtifactStore
    records: RecordStore

    def __init__(
        self, address: str, *, namespace: str = "flowkit", config: SqliteConfig | None = None
    ) -> None:
        """Prepare to use the file; ``namespace`` separates the installations in it.

        Raises:
            ConfigError: the address does not name a file.
        """
        config = config or SqliteConfig()
        self._context = Context(Database.at(file_of(address), config), namespace, config)
        self._life = Lifecycle[_Parts]("this store", error=StoreError)

    async def __aenter__(self) -> Self:
        self._life.check_not_open()
        context = self._context
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(context.database)
            if not await context.read(has_tables):
                await context.write(create_tables)
            changes = await stack.enter_async_context(Changes(context))
            self.artifacts = SqliteArtifactStore(context)
            self.records = SqliteRecordStore(context)
            self._life.open(
                _Parts(
                    stack=stack.pop_all(),
                    context=context,
                    tasks=Tasks(context),
                    commits=Commits(context),
                    archive=Archive(context),
                    changes=changes,
                    retention=Retention(context),
                )
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if (parts := self._life.close()) is not None:
            await parts.stack.aclose()

    # ------------------------------------------------------------ tasks

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        return await self._life.resource.tasks.create(records) if records else []

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        return await self._life.resource.tasks.load(task_ids) if task_ids else {}

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        return await self._life.resource.commits.apply(commits) if commits else []

    async def read_archive(self, task_id: str, names: Collection[str]) -> dict[str, bytes]:
        return await self._life.resource.archive.read(task_id, names) if names else {}

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
        context = self._life.resource.context
        search = await context.read(
            partial(damaged_records, namespace=context.namespace, limit=limit)
        )
        return search.records

    async def check(self) -> list[CheckResult]:
        return await diagnose(self._life.resource.context)
