"""Export of a store: ended tasks with all that belongs to them, registered flows, schedules and
triggers.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from anyio import to_thread

from flowkit._exports.artifact_order import artifacts_in_order
from flowkit._exports.definition_export import DefinitionExport
from flowkit._exports.line_texts import encode_line
from flowkit._exports.lines import (
    ArchivedPartLine,
    ArtifactLine,
    DeadLetterLine,
    EndLine,
    FlowVersionLine,
    HeaderLine,
    Line,
    TaskLine,
    TriggerLine,
)
from flowkit._exports.trigger_export import TriggerExport
from flowkit._records import letter_records
from flowkit._records.claims import is_artifact
from flowkit.errors import CorruptRecord, NodeFailure, TaskNotFound
from flowkit.protocols import KeyedRecord, Store, TaskQuery, TaskRecord

TASKS_AT_ONCE = 20
"""Tasks that are loaded in one call. A task may have many megabytes."""
RECORDS_AT_ONCE = 200
MEMORY_BYTES = 8_000_000
"""Size of a task's lines above which they are collected in a temporary file."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Tasks to export: all that match. Without any field, everything in the store matches."""

    task_ids: Sequence[str] = ()
    statuses: Sequence[str] = ()
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created_after: float | None = None
    created_before: float | None = None


@dataclass(slots=True)
class Exported:
    """Numbers of what was exported, and the tasks that were not.

    ``running`` has the numbers of tasks that have not ended, by status.
    """

    tasks: int = 0
    artifacts: int = 0
    dead_letters: int = 0
    flow_versions: int = 0
    schedules: int = 0
    triggers: int = 0
    trigger_events: int = 0
    running: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    """Records that could not be read, or changed meanwhile."""


class Exporter:
    """Writes what is in a store to a file.

    Each task is exported as of one version. ``report`` is called with a sentence about each record
    that is not exported, apart from tasks that have not ended.
    """

    def __init__(
        self,
        store: Store,
        out: BinaryIO,
        *,
        header: HeaderLine,
        report: Callable[[str], None],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._store = store
        self._out = out
        self._header = header
        self._report = report
        self._memory_bytes = memory_bytes
        self._lines = 0
        self._done = Exported()

    async def run(self, selection: Selection) -> Exported:
        """Export the tasks that match; without a selection, also flows, schedules and
        triggers.

        Raises:
            TaskNotFound: one of the selected tasks does not exist.
        """
        for task_id in selection.task_ids:
            await self._load(task_id)
        self._write(self._header)
        async for record in self._selected(selection):
            if record.fault is not None:
                self._leave_out(f"task {record.header.task_id!r}", record.fault)
            elif record.header.finished_at is None:
                self._done.running[record.header.status] += 1
            else:
                await self._export(record)
        if selection == Selection():
            await self._export_letters_without_task()
            await self._export_definitions()
        self._write(EndLine(lines=self._lines + 1))
        await to_thread.run_sync(self._out.flush)
        return self._done

    def _leave_out(self, what: str, why: object) -> None:
        self._done.failed += 1
        self._report(f"{what} is not exported: {why}")

    def _write(self, line: Line) -> None:
        self._out.write(encode_line(line))
        self._lines += 1

    # ------------------------------------------------------------ tasks

    async def _selected(self, selection: Selection) -> AsyncIterator[TaskRecord]:
        """Yield the tasks that match, the newest first."""
        for task_id in dict.fromkeys(selection.task_ids):
            yield await self._load(task_id)
        after: str | None = None
        while not selection.task_ids:
            page, after = await self._store.list_tasks(
                TaskQuery(
                    statuses=selection.statuses,
                    pipeline=selection.pipeline,
                    labels=selection.labels,
                    created_after=selection.created_after,
                    created_before=selection.created_before,
                    limit=TASKS_AT_ONCE,
                    after=after,
                )
            )
            for record in page:
                yield record
            if after is None:
                return

    async def _load(self, task_id: str) -> TaskRecord:
        found = await self._store.load([task_id])
        if task_id not in found:
            raise TaskNotFound(task_id)
        return found[task_id]

    async def _export(self, record: TaskRecord) -> None:
        """Export a task, unless it changes meanwhile."""
        task_id = record.header.task_id
        with tempfile.SpooledTemporaryFile(max_size=self._memory_bytes) as spool:
            try:
                counts, artifacts = await self._collect(task_id, spool)
            except (CorruptRecord, NodeFailure) as error:
                self._leave_out(f"task {task_id!r}", error)
                return
            now = (await self._store.load([task_id])).get(task_id)
            if now is None or now.version != record.version:
                self._leave_out(f"task {task_id!r}", "it was retried or deleted meanwhile")
                return
            line = TaskLine.of(
                record,
                archived_parts=counts[ArchivedPartLine],
                artifacts=counts[ArtifactLine],
                dead_letters=counts[DeadLetterLine],
            )
            spool.seek(0)
            await to_thread.run_sync(self._copy, encode_line(line), spool)
        self._lines += 1 + counts.total()
        self._done.tasks += 1
        self._done.artifacts += artifacts
        self._done.dead_letters += line.dead_letters

    def _copy(self, first: bytes, rest: IO[bytes]) -> None:
        self._out.write(first)
        shutil.copyfileobj(rest, self._out)

    async def _collect(self, task_id: str, spool: IO[bytes]) -> tuple[Counter[type[Line]], int]:
        """Write the lines that belong to a task. Return how many there are of each type, and how
        many of them are artifacts of handlers.
        """
        counts: Counter[type[Line]] = Counter()
        artifacts = 0
        async for line in self._belonging(task_id):
            spool.write(encode_line(line))
            counts[type(line)] += 1
            artifacts += isinstance(line, ArtifactLine) and is_artifact(line.record())
        return counts, artifacts

    async def _belonging(self, task_id: str) -> AsyncIterator[Line]:
        async for part in self._archived_parts(task_id):
            yield part
        async for artifact in artifacts_in_order(
            self._store.artifacts, task_id, memory_bytes=self._memory_bytes
        ):
            yield ArtifactLine.of(artifact)
        async for record in self._letters(task_id):
            yield DeadLetterLine.of(record)

    async def _archived_parts(self, task_id: str) -> AsyncIterator[Line]:
        after = ""
        while page := await self._store.scan_archive(
            task_id, prefix="", after=after, limit=RECORDS_AT_ONCE
        ):
            for name, data in page:
                yield ArchivedPartLine(task_id=task_id, name=name, data=data)
            after = page[-1][0]

    # ------------------------------------------------------------ dead letters

    async def _letters(self, task_id: str | None = None) -> AsyncIterator[KeyedRecord]:
        """Yield the records of the dead letters of a task, or of all."""
        wanted, after = letter_records.Selection(task_id), ""
        while page := await letter_records.selected(
            self._store, wanted, after=after, limit=RECORDS_AT_ONCE
        ):
            for record in page:
                fault = self._fault(record)
                if fault is None:
                    yield record
                elif task_id is not None or letter_records.task_of(record.key) is None:
                    self._leave_out(f"dead letter {record.key!r}", fault)
            after = page[-1].key

    def _fault(self, record: KeyedRecord) -> str | None:
        # Encoded data is exported as it is: this process may not have the key.
        return record.fault if self._header.encoded else letter_records.letter_of(record).fault

    async def _export_letters_without_task(self) -> None:
        """Export the dead letters that are about no task, or about one that was deleted."""
        async for record in self._letters():
            task_id = letter_records.task_of(record.key)
            if task_id is None or not await self._store.load([task_id]):
                self._write(DeadLetterLine.of(record))
                self._done.dead_letters += 1

    # ------------------------------------------------------------ flows, schedules, triggers

    async def _export_definitions(self) -> None:
        export = DefinitionExport(
            self._store.records, encoded=self._header.encoded, leave_out=self._leave_out
        )
        async for line in export.lines():
            self._write(line)
            if isinstance(line, FlowVersionLine):
                self._done.flow_versions += 1
            else:
                self._done.schedules += 1
        triggers = TriggerExport(
            self._store.records, encoded=self._header.encoded, leave_out=self._leave_out
        )
        async for each in triggers.lines():
            self._write(each)
            if isinstance(each, TriggerLine):
                self._done.triggers += 1
            else:
                self._done.trigger_events += 1
