"""Import of ended tasks and of dead letters.

The record of a new task is created without its parts, which are added last, when everything that
belongs to the task is stored. So an import that was interrupted leaves at most one task that
nothing can run or read, and the next import completes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import compress
from typing import Any, cast

from flowkit._exports.export_reader import Batch
from flowkit._exports.import_report import ImportReport
from flowkit._exports.lines import ArchivedPartLine, ArtifactLine, DeadLetterLine, TaskLine
from flowkit._exports.stored_records import (
    archive_difference,
    artifact_difference,
    different_letters,
    task_difference,
)
from flowkit._records.claims import is_artifact
from flowkit._records.letter_records import store_records
from flowkit.errors import StoreError
from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    KeyedRecord,
    Store,
    TaskRecord,
)

RANK = 0
"""Rank of imported archived parts. A part that the task archives later replaces it."""
DISCARDED_AT, DISCARDED_BEFORE = 0.0, 0.001
"""Time of the end of a discarded import, and a time that is after it and before all others."""


class State(Enum):
    """State of a task in the store."""

    INCOMPLETE = auto()
    """It is being imported."""
    STORED = auto()
    """It is there already."""
    REFUSED = auto()
    """Another task is there."""


@dataclass(slots=True)
class Incoming:
    """Task that is imported, with the records of the current batch that belong to it."""

    number: int
    """Line of the task."""
    record: TaskRecord
    left: int
    """Records that belong to the task and were not imported yet."""
    state: State | None = None
    version: int = 0
    parts: list[ArchivedPart] = field(default_factory=list)
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    letters: list[KeyedRecord] = field(default_factory=list)

    @property
    def task_id(self) -> str:
        return self.record.header.task_id

    def change(self, **fields: Any) -> Commit:
        """Return a change of the record that is being imported."""
        unchanged = Commit(
            self.task_id,
            self.version,
            op_id=self.record.op_id,
            status="queued",
            wake_at=None,
            finished_at=None,
            put={},
        )
        return replace(unchanged, **fields)

    def clear(self) -> None:
        """Forget the records of the batch, which were imported."""
        self.left -= len(self.parts) + len(self.artifacts) + len(self.letters)
        self.parts, self.artifacts, self.letters = [], [], []


class TaskImport:
    """Stores the tasks and dead letters of an export. Nothing that is in the store is changed."""

    def __init__(self, store: Store, report: ImportReport) -> None:
        self._store = store
        self._report = report
        self._done = report.done
        self._last: Incoming | None = None
        """The last task, whose records may follow in the next batch."""

    async def add(self, batch: Batch) -> None:
        """Store the tasks and dead letters of a part of the export."""
        tasks, letters = self._sorted(batch)
        await self._begin([task for task in tasks if task.state is None])
        await self._add_records([task for task in tasks if task.state is State.INCOMPLETE])
        for task in tasks:
            if task.state is State.STORED:
                await self._compare(task)
        await self._add_letters(letters)
        for task in tasks:
            task.clear()
        await self._complete([task for task in tasks if not task.left])

    def _sorted(self, batch: Batch) -> tuple[list[Incoming], list[KeyedRecord]]:
        """Return the tasks of a batch with their records, and the dead letters without a task."""
        tasks = [self._last] if self._last is not None and self._last.left else []
        letters: list[KeyedRecord] = []
        left = tasks[0].left if tasks else 0
        for number, line in batch:
            if isinstance(line, TaskLine):
                left = line.archived_parts + line.artifacts + line.dead_letters
                tasks.append(Incoming(number, line.record(), left))
                continue
            if not left:
                letters.append(cast("DeadLetterLine", line).record())
                continue
            left -= 1
            if isinstance(line, ArchivedPartLine):
                tasks[-1].parts.append(ArchivedPart(line.name, RANK, line.data))
            elif isinstance(line, ArtifactLine):
                tasks[-1].artifacts.append(line.record())
            elif isinstance(line, DeadLetterLine):
                tasks[-1].letters.append(line.record())
        self._last = tasks[-1] if tasks else None
        return tasks, letters

    # ------------------------------------------------------------ tasks

    async def _begin(self, tasks: Sequence[Incoming]) -> None:
        """Find out which tasks are in the store, and create those that are not."""
        stored = await self._store.load([task.task_id for task in tasks])
        for task in tasks:
            if (record := stored.get(task.task_id)) is not None:
                await self._take_stored(task, record)
        await self._create([task for task in tasks if task.state is None])

    async def _take_stored(self, task: Incoming, record: TaskRecord) -> None:
        """Decide what to do with a task that is in the store."""
        if record.parts or record.fault is not None:
            task.state = State.STORED
            if (difference := task_difference(record, task.record)) is not None:
                self._refuse(task, difference)
            return
        task.version = record.version
        if (record.op_id, record.spec) == (task.record.op_id, task.record.spec):
            task.state = State.INCOMPLETE
        else:
            await self._discard(task)

    async def _discard(self, task: Incoming) -> None:
        """Delete the record of an interrupted import of another state of the task."""
        await self._commit([(task, task.change(finished_at=DISCARDED_AT, status="cancelled"))])
        await self._store.purge(finished_before=DISCARDED_BEFORE)

    async def _create(self, tasks: Sequence[Incoming]) -> None:
        ids = await self._store.create([_without_parts(task.record) for task in tasks])
        for task, task_id in zip(tasks, ids, strict=True):
            task.state, task.version = State.INCOMPLETE, task.record.version
            if task_id != task.task_id:
                key = task.record.header.idempotency_key
                self._refuse(task, f"its idempotency key {key!r} belongs to task {task_id!r}")

    async def _complete(self, tasks: Iterable[Incoming]) -> None:
        """Add the parts of tasks whose other records were imported."""
        new = [task for task in tasks if task.state is State.INCOMPLETE]
        await self._commit(
            (
                task,
                task.change(
                    put=task.record.parts,
                    status=task.record.header.status,
                    wake_at=task.record.header.wake_at,
                    finished_at=task.record.header.finished_at,
                    tags=task.record.header.tags,
                ),
            )
            for task in new
        )
        self._done.tasks += len(new)
        self._done.skipped += sum(task.state is State.STORED for task in tasks)

    async def _commit(self, changes: Iterable[tuple[Incoming, Commit]]) -> None:
        """Apply changes to tasks that are being imported.

        Raises:
            StoreError: another process changed one of them.
        """
        changes = list(changes)
        applied = await self._store.commit([commit for _, commit in changes])
        for (task, _), was_applied in zip(changes, applied, strict=True):
            if not was_applied:
                raise StoreError(
                    f"task {task.task_id!r} was changed while it was imported, perhaps by another"
                    " import; run this import again"
                )
            task.version += 1

    # ------------------------------------------------------------ what belongs to a task

    async def _add_records(self, tasks: Sequence[Incoming]) -> None:
        """Store the archived parts, artifacts and dead letters of the batch."""
        await self._commit((task, task.change(archive=task.parts)) for task in tasks if task.parts)
        artifacts = [record for task in tasks for record in task.artifacts]
        new = await self._store.artifacts.put(artifacts) if artifacts else ()
        self._done.artifacts += sum(map(is_artifact, compress(artifacts, new)))
        if not all(new):
            for task in tasks:
                if difference := await artifact_difference(self._store, task.artifacts):
                    self._refuse(task, difference)
        await self._add_letters([letter for task in tasks for letter in task.letters])

    async def _add_letters(self, letters: Sequence[KeyedRecord]) -> None:
        if not letters:
            return
        await store_records(self._store, letters)
        different = await different_letters(self._store, letters)
        for name in different:
            self._report.refuse(f"dead letter {name!r}", "another one with this id exists")
        self._done.dead_letters += len(letters) - len(different)

    async def _compare(self, task: Incoming) -> None:
        """Compare the records of the batch with those of a task that is in the store.

        Dead letters are not compared: they may have been retried or dropped.
        """
        difference = await archive_difference(
            self._store, task.task_id, task.parts
        ) or await artifact_difference(self._store, task.artifacts)
        if difference is not None:
            self._refuse(task, difference)

    def _refuse(self, task: Incoming, why: str) -> None:
        task.state = State.REFUSED
        self._report.refuse(f"task {task.task_id!r}", why, line=task.number)


def _without_parts(record: TaskRecord) -> TaskRecord:
    """Return the record of a task whose import has only begun. It does not look ended, so that
    nothing deletes it.
    """
    header = replace(
        record.header, status="queued", wake_at=None, finished_at=None, tags=frozenset()
    )
    return replace(record, header=header, parts={})
