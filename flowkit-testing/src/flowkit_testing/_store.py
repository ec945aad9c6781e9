"""In-memory store that keeps every promise of the protocol."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Self

import anyio.lowlevel

from flowkit.errors import RecordTooLarge
from flowkit.protocols import (
    ArtifactStore,
    CheckResult,
    Commit,
    RecordStore,
    TaskQuery,
    TaskRecord,
)
from flowkit_testing._artifacts import InMemoryArtifactStore
from flowkit_testing._keyed_records import InMemoryRecordStore
from flowkit_testing._task_table import TaskTable


class InMemoryStore:
    """:class:`~flowkit.protocols.Store` in memory.

    It stores and returns copies, so no mapping or buffer is shared with the caller. One object may
    be used by several event loops, one after the other, and keeps its data as long as it exists. It
    is not thread-safe.
    """

    artifacts: ArtifactStore
    records: RecordStore

    def __init__(
        self, *, max_record_bytes: int = 8 * 1024 * 1024, max_part_bytes: int | None = None
    ) -> None:
        """Create a store.

        The spec and the parts of a new task may have ``max_record_bytes`` in total, and each later
        part ``max_part_bytes``, which defaults to the same.
        """
        self.max_record_bytes = max_record_bytes
        self.max_part_bytes = max_record_bytes if max_part_bytes is None else max_part_bytes
        self.artifacts = self._artifacts = InMemoryArtifactStore(max_record_bytes=max_record_bytes)
        self.records = self._records = InMemoryRecordStore(max_record_bytes=max_record_bytes)
        self._tasks = TaskTable()
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    # ------------------------------------------------------------ tasks

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        for record in records:
            size = len(record.spec) + sum(map(len, record.parts.values()))
            self._check_size(f"task {record.header.task_id!r}", size, self.max_record_bytes)
        return [self._tasks.create(record) for record in records]

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        rows = self._tasks.rows
        return {task_id: rows[task_id].record() for task_id in task_ids if task_id in rows}

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        for commit in commits:
            for name, data in commit.put.items():
                if len(data) > self.max_part_bytes:
                    self._check_size(
                        f"part {name!r} of task {commit.task_id!r}", len(data), self.max_part_bytes
                    )
            for part in commit.archive:
                if len(part.data) > self.max_part_bytes:
                    self._check_size(
                        f"part {part.name!r} of task {commit.task_id!r}",
                        len(part.data),
                        self.max_part_bytes,
                    )
        answers = [self._tasks.commit(commit) for commit in commits]
        if self._waiting:
            for commit, applied in zip(commits, answers, strict=True):
                if applied:
                    self._wake(commit.task_id)
        return answers

    @staticmethod
    def _check_size(what: str, size: int, limit: int) -> None:
        if size > limit:
            raise RecordTooLarge(f"{what} of {size} bytes is above the limit of {limit}")

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        row = self._tasks.rows.get(task_id)
        return (
            {}
            if row is None
            else {name: row.archive[name][1] for name in names if name in row.archive}
        )

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[str, bytes]]:
        row = self._tasks.rows.get(task_id)
        if row is None:
            return []
        names = sorted(name for name in row.archive if name.startswith(prefix) and name > after)
        return [(name, row.archive[name][1]) for name in names[:limit]]

    async def due(self, *, before: float, limit: int) -> Sequence[str]:
        return self._tasks.due(before=before, limit=limit)

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        return self._tasks.page(query)

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        task_ids = self._tasks.ended(before=finished_before, limit=limit)
        self._tasks.delete(task_ids)
        for task_id in task_ids:
            self._artifacts.forget(task_id)
            self._records.forget(task_id)
            self._wake(task_id)
        return len(task_ids)

    # ------------------------------------------------------------ waiting

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        waited = False
        while (row := self._tasks.rows.get(task_id)) is not None and (
            row.version <= version or (ended and row.finished_at is None)
        ):
            waited = True
            # The future belongs to the current event loop, so that the store itself belongs to
            # none.
            woken = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(task_id, {})
            waiting[woken] = None
            try:
                await woken
            finally:
                waiting.pop(woken, None)
                if not waiting and self._waiting.get(task_id) is waiting:
                    del self._waiting[task_id]
        if not waited:
            await anyio.lowlevel.checkpoint()

    def _wake(self, task_id: str) -> None:
        for woken in self._waiting.pop(task_id, ()):
            if not woken.done():
                woken.set_result(None)

    async def check(self) -> Sequence[CheckResult]:
        return [
            CheckResult(
                "store",
                True,
                f"in memory, {len(self._tasks.rows)} tasks; it ends with this process",
            )
        ]
