"""Artifacts of nodes, numbered without gaps in their streams."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flowkit.protocols import ArtifactRecord, Stream
from flowkit_sqlite._column_forms import COLUMNS, NAMES, fault
from flowkit_sqlite._context import Context, before_damage, corrupt, shown
from flowkit_sqlite._jobs import is_brief

MOST_READ_BRIEFLY = 100

ADD_OWNER = """
    INSERT INTO artifact_owners (id, namespace, task_id) VALUES (
        max(
            coalesce((SELECT max(id) FROM artifact_owners), 0),
            coalesce((SELECT max(owner) FROM purged), 0)
        ) + 1,
        ?, ?
    )
"""
OWNER = "SELECT id FROM artifact_owners WHERE namespace = ? AND task_id = ?"
OF_STREAM = "owner = ? AND node_id = ? AND generation = ?"
ENDS = f"""
    SELECT (SELECT min(position) FROM artifacts WHERE {OF_STREAM}),
           (SELECT max(position) FROM artifacts WHERE {OF_STREAM})
"""
INSERT = f"""
    INSERT INTO artifacts (owner, {NAMES["artifacts"]}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, node_id, generation, uid) DO NOTHING
"""
SELECT = f"SELECT {NAMES['artifacts']} FROM artifacts"
READ = f"{SELECT} WHERE {OF_STREAM} AND position > ? ORDER BY position LIMIT ?"
IS_KNOWN = f"SELECT 1 FROM artifacts WHERE {OF_STREAM} AND uid = ?"
PLACE = "created_at, node_id, generation, position"
SCAN = f"{SELECT} INDEXED BY artifacts_by_time WHERE owner = ?"
SCAN_FIRST = f"{SCAN} ORDER BY {PLACE} LIMIT ?"
SCAN_AFTER = f"{SCAN} AND ({PLACE}) > (?, ?, ?, ?) ORDER BY {PLACE} LIMIT ?"


class SqliteArtifactStore:
    """An :class:`~flowkit.protocols.ArtifactStore` in an SQLite file."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def put(self, records: Sequence[ArtifactRecord]) -> list[bool]:
        total = 0
        for record in records:
            size = len(record.meta or b"") + len(record.metrics)
            self._context.check_size(size, "artifact {!r} of {}", record.uid, record.stream)
            total += size
        if not records:
            return []
        return await self._context.write(
            partial(_put, namespace=self._context.namespace, records=records),
            brief=is_brief(len(records), total),
        )

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> list[ArtifactRecord]:
        def job(connection: sqlite3.Connection) -> list[ArtifactRecord]:
            key = self._key(connection, stream)
            rows = connection.execute(READ, (*key, after, limit))
            return before_damage(_record(stream, row) for row in rows)

        return await self._context.read(job, brief=limit <= MOST_READ_BRIEFLY)

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        def job(connection: sqlite3.Connection) -> set[str]:
            key = self._key(connection, stream)
            return {uid for uid in uids if connection.execute(IS_KNOWN, (*key, uid)).fetchone()}

        return await self._context.read(job, brief=is_brief(len(uids)))

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[tuple[tuple[float, str], ArtifactRecord]]:
        def job(connection: sqlite3.Connection) -> list[ArtifactRecord]:
            owner = _owner(connection, self._context.namespace, task_id)
            if after is None:
                rows = connection.execute(SCAN_FIRST, (owner, limit))
            else:
                created_at, place = after
                rows = connection.execute(
                    SCAN_AFTER, (owner, created_at, *json.loads(place), limit)
                )
            return before_damage(_record(Stream(task_id, row[0], row[1]), row) for row in rows)

        return [(_cursor(record), record) for record in await self._context.read(job)]

    def _key(self, connection: sqlite3.Connection, stream: Stream) -> tuple[int | None, str, int]:
        owner = _owner(connection, self._context.namespace, stream.task_id)
        return owner, stream.node_id, stream.generation


def _owner(connection: sqlite3.Connection, namespace: str, task_id: str) -> int | None:
    """Return the number of the owner of a task's artifacts; None if it has none."""
    found = connection.execute(OWNER, (namespace, task_id)).fetchone()
    return None if found is None else found[0]


def _cursor(record: ArtifactRecord) -> tuple[float, str]:
    stream = record.stream
    # Faster than json.dumps of a list, because a scan needs a cursor for each record.
    return (
        record.created_at,
        f"[{json.dumps(stream.node_id)}, {stream.generation}, {record.position}]",
    )


@dataclass(slots=True)
class _End:
    """End of a stream: its owner's number, and its last position."""

    owner: int
    position: int


def _put(
    connection: sqlite3.Connection, *, namespace: str, records: Sequence[ArtifactRecord]
) -> list[bool]:
    owners: dict[str, int] = {}
    ends: dict[Stream, _End] = {}
    new = []
    for record in records:
        stream = record.stream
        end = ends.get(stream)
        if end is None:
            owner = owners.get(stream.task_id)
            if owner is None:
                owner = _add_owner(connection, namespace, stream.task_id)
                owners[stream.task_id] = owner
            end = ends[stream] = _End(owner, _last_position(connection, owner, stream))
        inserted = connection.execute(
            INSERT,
            (
                end.owner,
                stream.node_id,
                stream.generation,
                end.position + 1,
                record.uid,
                record.partial,
                record.meta,
                record.metrics,
                record.created_at,
            ),
        ).rowcount
        end.position += inserted
        new.append(inserted == 1)
    return new


def _add_owner(connection: sqlite3.Connection, namespace: str, task_id: str) -> int:
    """Return the number of the owner of a task's artifacts. Add it if it does not exist."""
    owner = _owner(connection, namespace, task_id)
    if owner is None:
        owner = connection.execute(ADD_OWNER, (namespace, task_id)).lastrowid
        assert owner is not None
    return owner


def _last_position(connection: sqlite3.Connection, owner: int, stream: Stream) -> int:
    """Return the last position of a stream.

    Raises:
        CorruptRecord: a position in the stream is damaged. Records after it could not be read.
    """
    key = (owner, stream.node_id, stream.generation)
    ends = connection.execute(ENDS, (*key, *key)).fetchone()
    if ends == (None, None):
        return 0
    form = COLUMNS["artifacts"]["position"]
    for position in ends:
        if not form.fits(position):
            raise corrupt(
                f"the artifacts of {_name(stream)}",
                f"a position must be {form.words}, but is {position!r:.50}",
            )
    return int(ends[1])


def _record(stream: Stream, row: Sequence[Any]) -> ArtifactRecord:
    _, _, position, uid, partial_, meta, metrics, created_at = row
    found = fault("artifacts", row)
    if found is not None:
        raise corrupt(f"the artifact {shown(str(uid))!r:.100} of {_name(stream)}", found)
    return ArtifactRecord(stream, uid, partial_ == 1, meta, metrics, created_at, position)


def _name(stream: Stream) -> str:
    return f"node {stream.node_id!r} of task {stream.task_id!r}"
