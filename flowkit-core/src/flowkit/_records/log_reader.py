"""Reader of the log lines of a task, in order of time."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heapify, heappop, heappush, merge
from itertools import groupby

from flowkit._records.log_records import (
    KIND,
    StoredLine,
    after_writer,
    decode_lines,
    flush_of,
    prefix_of,
    whole_flushes,
    writer_of,
)
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord, RecordStore, utc
from flowkit.task import LogLine

logger = logging.getLogger(__name__)

PAGE = 25
"""Records of a writer that are read at a time. Most have a few lines, and none has more than a
quarter of a megabyte.
"""


class LogReader:
    """Reader of the lines of a task, and its position: each :meth:`read` goes on after the last."""

    def __init__(
        self, records: RecordStore, task_id: str, *, of: Callable[[str], bool], part: bytes = b""
    ) -> None:
        """``of`` says of which nodes the lines are wanted. The records with such lines contain
        ``part``: the other ones are not decoded.
        """
        self._records = records
        self._task_id = task_id
        self._of = of
        self._part = part
        self._writers: dict[str, _WriterLines] = {}

    async def read(self) -> AsyncIterator[LogLine]:
        """Yield the lines that were not read before, those of an attempt by number and those of
        different ones by time.

        A damaged record is logged, and its lines are missing.
        """
        await self._find_writers()
        waiting = [
            (lines.first_at, place, lines)
            for place, lines in enumerate(self._writers.values())
            if await lines.fill()
        ]
        heapify(waiting)
        while waiting:
            _, place, lines = heappop(waiting)
            yield lines.take()
            if await lines.fill():
                heappush(waiting, (lines.first_at, place, lines))

    async def _find_writers(self) -> None:
        prefix = after = prefix_of(self._task_id)
        while found := await self._records.scan(KIND, prefix=prefix, after=after, limit=1):
            writer = writer_of(found[0])
            if writer not in self._writers:
                self._writers[writer] = _WriterLines(
                    self._records, self._task_id, writer, of=self._of, part=self._part
                )
            after = max(after_writer(self._task_id, writer), found[0].key)


class _WriterLines:
    """Lines of one writer that were read from the store and not taken."""

    def __init__(
        self,
        records: RecordStore,
        task_id: str,
        writer: str,
        *,
        of: Callable[[str], bool],
        part: bytes,
    ) -> None:
        self._records = records
        self._task_id = task_id
        self._prefix = self._after = prefix_of(task_id, writer)
        self._of = of
        self._part = part
        self._lines: deque[tuple[str, StoredLine]] = deque()
        self._numbers: dict[int, int] = {}
        """The number of the last line that was taken of each run."""

    @property
    def first_at(self) -> float:
        return self._lines[0][1].at

    async def fill(self) -> bool:
        """Return whether there is a line to take."""
        while not self._lines:
            page = await self._records.scan(
                KIND, prefix=self._prefix, after=self._after, limit=PAGE
            )
            if not page:
                return False
            page = whole_flushes(page, PAGE)
            self._after = page[-1].key
            for _, records in groupby(page, flush_of):
                found = [self._wanted(record) for record in records]
                self._lines.extend(merge(*found, key=lambda item: item[1].at))
        return True

    def take(self) -> LogLine:
        """Return the first line."""
        worker_id, line = self._lines.popleft()
        last = self._numbers.get(line.run, 0)
        self._numbers[line.run] = line.number
        return LogLine(
            at=utc(line.at),
            task_id=self._task_id,
            node_id=line.node,
            attempt=line.attempt,
            batch_uid=line.batch,
            worker_id=worker_id,
            level=line.level,
            logger=line.logger,
            text=line.text,
            fields=line.fields,
            traceback=line.traceback,
            number=line.number,
            dropped=max(line.number - last - 1, 0),
            trace_id=line.trace_id,
            span_id=line.span_id,
        )

    def _wanted(self, record: KeyedRecord) -> Sequence[tuple[str, StoredLine]]:
        if record.fault is None and self._part not in record.data:
            return []
        try:
            stored = decode_lines(record)
        except CorruptRecord as error:
            logger.warning(
                "Log lines are missing: %s",
                error,
                extra={"action": "log_lines_damaged", "task_id": self._task_id},
            )
            return []
        return [(stored.worker, line) for line in stored.lines if self._of(line.node)]
