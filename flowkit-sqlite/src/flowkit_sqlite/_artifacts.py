"""Artifacts of nodes, numbered without gaps in their streams."""

import sqlite3
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from flowkit.protocols import ArtifactRecord, Stream
from flowkit_sqlite._column_forms import COLUMNS, NAMES, fault
from flowkit_sqlite._context import Context, before_damage, corrupt, shown

ADD_OWNER = "INSERT INTO artifact_owners (namespace, task_id) VALUES (?, ?)"
OWNER = "SELECT id FROM artifact_owners WHERE namespace = ? AND task_id = ?"
ADD_STREAM = """
    INSERT INTO streams (owner, node_id, generation) VALUES (?, ?, ?)
"""
STREAM_OF_OWNER = "SELECT id FROM streams WHERE owner = ? AND node_id = ? AND generation = ?"
STREAM = f"SELECT id FROM streams WHERE owner = ({OWNER}) AND node_id = ? AND generation = ?"
ENDS = """
    SELECT (SELECT min(position) FROM artifacts WHERE stream = ?1),
           (SELECT max(position) FROM artifacts WHERE stream = ?1)
"""
INSERT = """
    INSERT INTO artifacts (owner, stream, position, uid, partial, meta, metrics, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, uid) DO NOTHING
"""
READ = f"""
    SELECT {NAMES["artifacts"]} FROM artifacts WHERE stream = ({STREAM}) AND position > ?
    ORDER BY position LIMIT ?
"""
IS_KNOWN = "SELECT 1 FROM artifacts WHERE stream = ? AND uid = ?"
SCAN = f"""
    SELECT artifacts.id, node_id, generation, {NAMES["artifacts"]}
    FROM artifacts LEFT JOIN streams ON streams.id = stream WHERE artifacts.owner = ({OWNER})
"""
SCAN_SAME_TIME = f"{SCAN} AND created_at = ? AND artifacts.id > ? ORDER BY artifacts.id LIMIT ?"
SCAN_LATER = f"{SCAN} AND created_at > ? ORDER BY created_at, artifacts.id LIMIT ?"
BEFORE_ALL = (float("-inf"), "0")


class _End:
    """The end of a stream, while records are put into it."""

    __slots__ = ("last", "owner", "stream")

    def __init__(self, owner: int, stream: int, last: int) -> None:
        self.owner, self.stream, self.last = owner, stream, last


class SqliteArtifactStore:
    """An :class:`~flowkit.protocols.ArtifactStore` in an SQLite file."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def put(self, records: Sequence[ArtifactRecord]) -> list[bool]:
        for record in records:
            size = len(record.meta or b"") + len(record.metrics)
            self._context.check_size(f"artifact {record.uid!r} of {record.stream}", size)
        if not records:
            return []
        return await self._context.write(
            partial(_put, namespace=self._context.namespace, records=records)
        )

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> list[ArtifactRecord]:
        values = (*_key(self._context, stream), after, limit)
        return await self._context.read(
            lambda connection: before_damage(
                _record(stream, row) for row in connection.execute(READ, values)
            )
        )

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        key = _key(self._context, stream)

        def job(connection: sqlite3.Connection) -> set[str]:
            found = connection.execute(STREAM, key).fetchone()
            if found is None:
                return set()
            return {uid for uid in uids if connection.execute(IS_KNOWN, (*found, uid)).fetchone()}

        return await self._context.read(job)

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[tuple[tuple[float, str], ArtifactRecord]]:
        key = (self._context.namespace, task_id)
        created_at, number = after or BEFORE_ALL

        def job(connection: sqlite3.Connection) -> list[tuple[tuple[float, str], ArtifactRecord]]:
            # One condition on both columns would read all records of the same time.
            values = (*key, created_at, int(number), limit)
            rows = connection.execute(SCAN_SAME_TIME, values).fetchall()
            rows += connection.execute(SCAN_LATER, (*key, created_at, limit - len(rows)))
            return before_damage(_scanned(task_id, row) for row in rows)

        return await self._context.read(job)


def _put(
    connection: sqlite3.Connection, *, namespace: str, records: Sequence[ArtifactRecord]
) -> list[bool]:
    ends: dict[Stream, _End] = {}
    new = []
    for record in records:
        end = ends.get(record.stream)
        if end is None:
            end = ends[record.stream] = _end_of(connection, namespace, record.stream)
        inserted = connection.execute(
            INSERT,
            (
                end.owner,
                end.stream,
                end.last + 1,
                record.uid,
                record.partial,
                record.meta,
                record.metrics,
                record.created_at,
            ),
        ).rowcount
        end.last += inserted
        new.append(inserted == 1)
    return new


def _end_of(connection: sqlite3.Connection, namespace: str, stream: Stream) -> _End:
    """Return the end of a stream. Create the stream if it does not exist.

    Raises:
        CorruptRecord: a position in the stream is damaged. Records after it could not be read.
    """
    owner = _number(connection, OWNER, ADD_OWNER, (namespace, stream.task_id))
    number = _number(
        connection, STREAM_OF_OWNER, ADD_STREAM, (owner, stream.node_id, stream.generation)
    )
    ends = connection.execute(ENDS, (number,)).fetchone()
    if ends == (None, None):
        return _End(owner, number, 0)
    form = COLUMNS["artifacts"]["position"]
    for position in ends:
        if not form.fits(position):
            raise corrupt(
                f"the artifacts of {stream}",
                f"a position must be {form.words}, but is {position!r:.50}",
            )
    return _End(owner, number, ends[1])


def _number(
    connection: sqlite3.Connection, find: str, add: str, values: tuple[str | int, ...]
) -> int:
    """Return the number of the row with these values. Add it if it does not exist."""
    found = connection.execute(find, values).fetchone()
    if found is None:
        added: int | None = connection.execute(add, values).lastrowid
        assert added is not None
        return added
    number: int = found[0]
    return number


def _key(context: Context, stream: Stream) -> tuple[str, str, str, int]:
    return context.namespace, stream.task_id, stream.node_id, stream.generation


def _record(stream: Stream, row: Sequence[Any]) -> ArtifactRecord:
    found = fault("artifacts", row)
    if found is not None:
        raise corrupt(f"the artifact {shown(str(row[1]))!r:.100} of {stream}", found)
    position, uid, partial_, meta, metrics, created_at = row
    return ArtifactRecord(stream, uid, partial_ == 1, meta, metrics, created_at, position)


def _scanned(task_id: str, row: Sequence[Any]) -> tuple[tuple[float, str], ArtifactRecord]:
    number, node_id, generation, *columns = row
    found = fault("streams", (node_id, generation))
    if found is not None:
        raise corrupt(f"an artifact of task {task_id!r}", found)
    record = _record(Stream(task_id, node_id, generation), columns)
    return (record.created_at, str(number)), record
