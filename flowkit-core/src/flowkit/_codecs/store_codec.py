"""Codecs of payloads in the store.

:func:`encoded` wraps a store in an :class:`EncodedStore` if a plugin encodes payloads. The data of
users and handlers is encoded: submissions, the parts of a task and of its archive, artifacts and
the data of keyed records. The fields by which a store finds records are not: ids, keys, statuses,
times, labels, the names of pipelines and idempotency keys.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from flowkit._user_code.containment import uncancelled
from flowkit.errors import PayloadError
from flowkit.plugins import Plugins
from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    ArtifactStore,
    CheckResult,
    Commit,
    DamagedRecord,
    KeyedRecord,
    RecordChange,
    RecordInspector,
    RecordStore,
    Store,
    Stream,
    TaskQuery,
    TaskRecord,
)


def encoded(store: Store, plugins: Plugins) -> Store:
    """Return the store that this installation uses."""
    return EncodedStore(store, plugins) if plugins.encodes_payloads else store


class EncodedStore:
    """A :class:`~flowkit.protocols.Store` around another one.

    A record that cannot be decoded is returned with a ``fault``, and does not affect others.
    """

    artifacts: ArtifactStore
    records: RecordStore

    def __init__(self, store: Store, plugins: Plugins) -> None:
        self._store = store
        self._plugins = plugins
        self._wrap()

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        self._wrap()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._store.__aexit__(*exc)

    def _wrap(self) -> None:
        self.artifacts = _EncodedArtifacts(self._store.artifacts, self._plugins)
        self.records = _EncodedRecords(self._store.records, self._plugins)

    # ------------------------------------------------------------ tasks

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        return await self._store.create(
            await uncancelled(lambda: [self._encoded(record) for record in records])
        )

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        found = await self._store.load(task_ids)
        return await uncancelled(
            lambda: {task_id: self._decoded(record) for task_id, record in found.items()}
        )

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        return await self._store.commit(
            await uncancelled(lambda: [self._encoded_commit(commit) for commit in commits])
        )

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        parts = await self._store.read_archive(task_id, names)
        return await uncancelled(lambda: self._decoded_parts(task_id, parts.items()))

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[str, bytes]]:
        parts = await self._store.scan_archive(task_id, prefix=prefix, after=after, limit=limit)
        return list((await uncancelled(lambda: self._decoded_parts(task_id, parts))).items())

    async def due(self, *, before: float, limit: int) -> Sequence[str]:
        return await self._store.due(before=before, limit=limit)

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        records, following = await self._store.list_tasks(query)
        return await uncancelled(lambda: [self._decoded(record) for record in records]), following

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        await self._store.wait_for_change(task_id, version, ended=ended)

    def _encoded(self, record: TaskRecord) -> TaskRecord:
        task_id = record.header.task_id
        spec = self._plugins.encode_payload(record.spec, _part(task_id, "spec"))
        return replace(record, spec=spec, parts=self._encoded_parts(task_id, record.parts))

    def _encoded_parts(self, task_id: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        return {
            name: self._plugins.encode_payload(data, _part(task_id, name))
            for name, data in parts.items()
        }

    def _decoded_parts(self, task_id: str, parts: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
        return {
            name: self._plugins.decode_payload(data, _part(task_id, name)) for name, data in parts
        }

    def _encoded_commit(self, commit: Commit) -> Commit:
        task_id = commit.task_id
        archive = [
            ArchivedPart(
                part.name,
                part.rank,
                self._plugins.encode_payload(part.data, _part(task_id, part.name)),
            )
            for part in commit.archive
        ]
        return replace(commit, put=self._encoded_parts(task_id, commit.put), archive=archive)

    def _decoded(self, record: TaskRecord) -> TaskRecord:
        if record.fault is not None:
            return record
        task_id = record.header.task_id
        try:
            spec = self._plugins.decode_payload(record.spec, _part(task_id, "spec"))
            parts = self._decoded_parts(task_id, record.parts.items())
        except PayloadError as error:
            return replace(record, spec=b"", parts={}, fault=str(error))
        return replace(record, spec=spec, parts=parts)

    # ------------------------------------------------------------ keeping

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        return await self._store.purge(finished_before=finished_before, limit=limit)

    async def check(self) -> Sequence[CheckResult]:
        return await self._store.check()

    async def damaged_records(self, *, limit: int = 100) -> Sequence[DamagedRecord]:
        return (
            await self._store.damaged_records(limit=limit)
            if isinstance(self._store, RecordInspector)
            else ()
        )


class _EncodedArtifacts:
    """Artifact store around another one."""

    def __init__(self, store: ArtifactStore, plugins: Plugins) -> None:
        self._store = store
        self._plugins = plugins

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        return await self._store.put(
            await uncancelled(lambda: [self._encoded(record) for record in records])
        )

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        records = await self._store.read(stream, after=after, limit=limit, latest=latest)
        return await uncancelled(lambda: [self._decoded(record) for record in records])

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        return await self._store.known(stream, uids)

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
        found = await self._store.scan(task_id, after=after, limit=limit)
        return await uncancelled(
            lambda: [(cursor, self._decoded(record)) for cursor, record in found]
        )

    def _encoded(self, record: ArtifactRecord) -> ArtifactRecord:
        place, encode = _artifact(record), self._plugins.encode_payload
        meta = None if record.meta is None else encode(record.meta, f"{place}/meta")
        return replace(record, meta=meta, metrics=encode(record.metrics, f"{place}/metrics"))

    def _decoded(self, record: ArtifactRecord) -> ArtifactRecord:
        place, decode = _artifact(record), self._plugins.decode_payload
        meta = None if record.meta is None else decode(record.meta, f"{place}/meta")
        return replace(record, meta=meta, metrics=decode(record.metrics, f"{place}/metrics"))


class _EncodedRecords:
    """Store of keyed records around another one."""

    def __init__(self, store: RecordStore, plugins: Plugins) -> None:
        self._store = store
        self._plugins = plugins

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        found = await self._store.get(kind, keys)
        return await uncancelled(
            lambda: {key: decoded_record(one, self._plugins) for key, one in found.items()}
        )

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        return await self._store.change(
            await uncancelled(
                lambda: [
                    replace(change, put=[self._encoded(record) for record in change.put])
                    for change in changes
                ]
            )
        )

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> Sequence[KeyedRecord]:
        found = await self._store.scan(kind, prefix=prefix, after=after, limit=limit, last=last)
        return await uncancelled(lambda: [decoded_record(one, self._plugins) for one in found])

    async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
        found = await self._store.due(kind, before=before, limit=limit)
        return await uncancelled(lambda: [decoded_record(one, self._plugins) for one in found])

    def _encoded(self, record: KeyedRecord) -> KeyedRecord:
        return replace(record, data=self._plugins.encode_payload(record.data, _keyed(record)))


def decoded_record(record: KeyedRecord, plugins: Plugins) -> KeyedRecord:
    """Return a keyed record with its data decoded, or with a ``fault``."""
    if record.fault is not None:
        return record
    try:
        return replace(record, data=plugins.decode_payload(record.data, _keyed(record)))
    except PayloadError as error:
        return replace(record, data=b"", fault=str(error))


def _part(task_id: str, name: str) -> str:
    return f"task/{task_id}/{name}"


def _keyed(record: KeyedRecord) -> str:
    return f"record/{record.kind}/{record.key}"


def _artifact(record: ArtifactRecord) -> str:
    stream = record.stream
    return f"artifact/{stream.task_id}/{stream.node_id}/{stream.generation}/{record.uid}"


__all__ = ["EncodedStore", "decoded_record", "encoded"]
