"""In-memory artifact store."""

from bisect import bisect_right
from collections.abc import Collection, Sequence

from flowkit.errors import RecordTooLarge
from flowkit.protocols import ArtifactRecord, Stream


class _StreamLog:
    """Records of one stream; position n is at index n - 1."""

    __slots__ = ("records", "uids")

    def __init__(self) -> None:
        self.records: list[ArtifactRecord] = []
        self.uids: set[str] = set()


class _TaskLog:
    """Records of one task in the order of their puts and, after the first scan, also by time."""

    __slots__ = ("by_time", "records", "streams")

    def __init__(self) -> None:
        self.streams: dict[tuple[str, int], _StreamLog] = {}
        self.records: list[ArtifactRecord] = []
        self.by_time: list[tuple[float, str, ArtifactRecord]] = []

    def sorted(self) -> list[tuple[float, str, ArtifactRecord]]:
        known = len(self.by_time)
        if known < len(self.records):
            # The order of puts breaks ties, so that a later record never sorts before a cursor of
            # the same time.
            self.by_time += [
                (record.created_at, f"{place:012}", record)
                for place, record in enumerate(self.records[known:], known)
            ]
            self.by_time.sort()
        return self.by_time


class InMemoryArtifactStore:
    """:class:`~flowkit.protocols.ArtifactStore` in memory."""

    def __init__(self, *, max_record_bytes: int = 8 * 1024 * 1024) -> None:
        self.max_record_bytes = max_record_bytes
        self._tasks: dict[str, _TaskLog] = {}

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        for record in records:
            size = len(record.metrics) + (0 if record.meta is None else len(record.meta))
            if size > self.max_record_bytes:
                raise RecordTooLarge(
                    f"artifact {record.uid!r} of {size} bytes is above the limit of"
                    f" {self.max_record_bytes}"
                )
        return [self._put(record) for record in records]

    def _put(self, record: ArtifactRecord) -> bool:
        stream = record.stream
        task = self._tasks.get(stream.task_id)
        if task is None:
            task = self._tasks[stream.task_id] = _TaskLog()
        log = task.streams.get((stream.node_id, stream.generation))
        if log is None:
            log = task.streams[stream.node_id, stream.generation] = _StreamLog()
        if record.uid in log.uids:
            return False
        meta = None if record.meta is None else bytes(record.meta)
        position = len(log.records) + 1
        stored = ArtifactRecord(
            stream,
            record.uid,
            record.partial,
            meta,
            bytes(record.metrics),
            record.created_at,
            position,
        )
        log.uids.add(record.uid)
        log.records.append(stored)
        task.records.append(stored)
        return True

    def _log(self, stream: Stream) -> _StreamLog | None:
        task = self._tasks.get(stream.task_id)
        return None if task is None else task.streams.get((stream.node_id, stream.generation))

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        log = self._log(stream)
        return [] if log is None else log.records[after : after + limit]

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        log = self._log(stream)
        return set() if log is None else log.uids.intersection(uids)

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
        task = self._tasks.get(task_id)
        if task is None:
            return []
        rows = task.sorted()
        start = 0 if after is None else bisect_right(rows, tuple(after), key=lambda row: row[:2])
        return [((at, place), record) for at, place, record in rows[start : start + limit]]

    def forget(self, task_id: str) -> None:
        """Delete the records of a task."""
        self._tasks.pop(task_id, None)
