"""Stores for the tests of exports, and what is in them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

from flowkit._exports.export import Exported, Exporter, Selection
from flowkit._exports.export_reader import ExportReader
from flowkit._exports.import_report import Imported
from flowkit._exports.importer import Importer
from flowkit._exports.lines import HeaderLine
from flowkit._records.letter_records import park_letters, read_letters
from flowkit.config import CommonConfig
from flowkit.errors import StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import ArchivedPart, Store, Stream, TaskQuery, TaskRecord
from flowkit.task import DeadLetter
from tests.store_records import NOON, artifact, change, task

HEADER = HeaderLine(flowkit="0", encoded=False)
ENCODED_HEADER = HeaderLine(flowkit="0", encoded=True)
PLAIN = Plugins([], discover=False)
DEFINITIONS = (
    "flow",
    "flow_version",
    "schedule",
    "schedule_definition",
    "trigger",
    "trigger_event",
    "trigger_pipeline",
)
"""Kinds of the keyed records of registered flows, schedules and triggers."""


class Reversing:
    """A plugin that encodes payloads."""

    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        return b"R" + data[::-1]

    def flowkit_decode_payload(self, data: bytes, context: str) -> bytes:
        assert data[:1] == b"R"
        return data[:0:-1]


CODEC = Plugins([Reversing()], discover=False)


@asynccontextmanager
async def opened(address: str, cfg: CommonConfig | None = None) -> AsyncIterator[Store]:
    async with Plugins().open_store(address, cfg or CommonConfig()) as store:
        yield store


async def exported(
    store: Store, selection: Selection | None = None, *, header: HeaderLine = HEADER
) -> bytes:
    return (await export_with_reports(store, selection, header=header))[0]


async def export_with_reports(
    store: Store,
    selection: Selection | None = None,
    *,
    header: HeaderLine = HEADER,
    **options: Any,
) -> tuple[bytes, Exported, list[str]]:
    """Export a store; return the file, the numbers and the reports."""
    out, reports = BytesIO(), []
    exporter = Exporter(store, out, header=header, report=reports.append, **options)
    done = await exporter.run(selection or Selection())
    return out.getvalue(), done, reports


async def import_into(
    store: Store, data: bytes, *, plugins: Plugins = PLAIN, **options: Any
) -> tuple[Imported, list[str]]:
    """Import a file; return the numbers and the reports."""
    reports: list[str] = []
    reader = ExportReader(BytesIO(data), **options)
    importer = Importer(store, plugins, reader.header(), report=reports.append)
    return await importer.run(reader), reports


async def add_ended(
    store: Store, task_id: str, *, artifacts: int = 3, archived: int = 2, **header: Any
) -> None:
    """Store a finished task with archived parts, artifacts of two nodes, and a dead letter."""
    await store.create([task(task_id, spec=f'{{"of":"{task_id}"}}'.encode(), **header)])
    parts = [ArchivedPart(f"n{number}", 1, b'"part"') for number in range(archived)]
    await store.artifacts.put(
        [
            artifact(Stream(task_id, node_id, generation), f"u{number}", at=NOON - number)
            for node_id, generation in [("b", 0), ("a", -2), ("a", -1), ("a", 0)]
            for number in range(artifacts)
        ]
    )
    await store.commit(
        [change(task_id, op_id="ended", status="finished", archive=parts, finished_at=NOON + 9)]
    )
    await park_letters(
        store, [DeadLetter(f"batch-{task_id}-1", NOON, "batch", "bad", "no", task_id=task_id)]
    )


async def contents(store: Store) -> dict[str, Any]:
    """Return all that an export has of a store, without the versions of records."""
    records, _ = await store.list_tasks(TaskQuery(limit=1000))
    return {
        "tasks": [unversioned(record) for record in records],
        "archive": {
            record.header.task_id: list(await store.scan_archive(record.header.task_id, prefix=""))
            for record in records
        },
        "artifacts": {
            record.header.task_id: sorted(
                (item for _, item in await store.artifacts.scan(record.header.task_id, limit=9999)),
                key=lambda item: (item.stream, item.position),
            )
            for record in records
        },
        "letters": await read_letters(store, limit=10_000),
        "definitions": [
            replace(record, revision="")
            for kind in DEFINITIONS
            for record in await store.records.scan(kind, limit=10_000)
        ],
    }


def unversioned(record: TaskRecord) -> TaskRecord:
    return TaskRecord(record.header, record.spec, dict(record.parts), 0, record.op_id, record.fault)


class Failing:
    """A store whose changes fail after the first few."""

    def __init__(self, store: Store, calls: int) -> None:
        self._store = store
        self._left = calls
        self.artifacts = _FailingArtifacts(store, self)
        self.records = _FailingRecords(store, self)

    def count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailable("away")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, records: Any) -> Any:
        self.count()
        return await self._store.create(records)

    async def commit(self, commits: Any) -> Any:
        self.count()
        return await self._store.commit(commits)


class _FailingRecords:
    def __init__(self, store: Store, owner: Failing) -> None:
        self._records = store.records
        self._owner = owner

    async def change(self, changes: Any) -> Any:
        self._owner.count()
        return await self._records.change(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


class _FailingArtifacts:
    def __init__(self, store: Store, owner: Failing) -> None:
        self._artifacts = store.artifacts
        self._owner = owner

    async def put(self, records: Any) -> Any:
        self._owner.count()
        return await self._artifacts.put(records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._artifacts, name)
