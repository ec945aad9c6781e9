"""Log lines of all runs of a worker, and the loop that stores them.

A handler never waits for the store, and an error of the store never reaches it: lines are dropped
instead. The numbers of the lines tell readers how many are missing.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import merge
from itertools import chain, count
from secrets import token_hex

from flowkit._records.log_records import KIND, log_record
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import notices_of, patiently
from flowkit._user_code.containment import error_text
from flowkit.config import LogConfig
from flowkit.protocols import Clock, KeyedRecord, RecordChange, RecordDeletion, RecordStore
from flowkit.worker._run_lines import Line, RunLines, cut, size_of

logger = logging.getLogger(__name__)

EVERY_SEC = 0.25
"""Time in which lines are collected before they are stored. Those of an ended run go at once."""
END_SEC = 1.0
"""Longest wait of an ended run, and of a stopping worker, until its lines are stored."""
MOST_WAITING_BYTES = 16 * 1024 * 1024
"""Length of the lines that wait for the store. Further lines are dropped."""
MOST_RECORD_BYTES = 256 * 1024
MOST_RECORD_LINES = 1_000
RECORDS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class _Part:
    """Lines that are stored as one record."""

    record: KeyedRecord
    lines: Sequence[Line]
    newest_of: RunLines | None = None
    """The run, if these are its newest lines."""


class LogLines:
    """The lines of all runs of a worker.

    The records of a task are stored one after the other, so a reader that has read one of them
    finds no new one before it.
    """

    def __init__(
        self, records: RecordStore, *, worker_id: str, cfg: LogConfig, clock: Clock
    ) -> None:
        self.cfg = cfg
        self.clock = clock
        self._records = records
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._runs = count(1)
        self._flushes = count(1)
        self._waiting: dict[RunLines, None] = {}
        self._waiting_bytes = 0
        """Length of the lines that are neither stored nor dropped."""
        self._dropped = 0
        self._woken = False
        self._signal = asyncio.Event()
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._late = False
        """Whether a run has waited in vain, and nothing was stored since."""
        self._outdated: list[str] = []
        """Keys of the records to delete."""

    def new_run(self, task_id: str) -> RunLines:
        """Return the lines of a run that begins to log."""
        return RunLines(task_id, next(self._runs), self.cfg)

    def add(self, run: RunLines, at: float, data: bytes) -> None:
        """Store a line in the background. ``data`` is its JSON without ``run`` and ``number``.

        This may be called from any thread.
        """
        with self._lock:
            run.lines += 1
            numbered = b'{"run":%d,"number":%d,%b' % (run.number, run.lines, data[1:])
            if self._waiting_bytes + len(numbered) > MOST_WAITING_BYTES:
                self._dropped += 1
                return
            gone = run.add(Line(run, at, numbered))
            run.unsettled += 1 - len(gone)
            self._waiting_bytes += len(numbered) - size_of(gone)
            self._waiting[run] = None
            if self._woken:
                return
            self._woken = True
        if threading.get_ident() == self._thread:
            self._signal.set()
        else:
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._signal.set)

    # ------------------------------------------------ waits

    async def wait_stored(self, run: RunLines) -> None:
        """Return when the lines of an ended run are stored, or after ``END_SEC``.

        While the store is too slow for that, return at once.
        """
        if run.unsettled and not self._late:
            self._late = not await self._stored(lambda: not run.unsettled)

    async def wait_all_stored(self) -> None:
        """Return when all lines are stored, or after ``END_SEC``."""
        if self._waiting_bytes:
            await self._stored(lambda: not self._waiting_bytes)

    async def _stored(self, done: Callable[[], bool]) -> bool:
        async def wait() -> None:
            while not done():
                self._progress.clear()
                await self._progress.wait()

        self._hurry.set()
        return await within(END_SEC, wait, clock=self.clock)

    # ------------------------------------------------ the loop

    async def store_lines(self) -> None:
        """Run the loop that stores lines."""
        while True:
            await self._signal.wait()
            if not self._hurry.is_set():
                await within(EVERY_SEC, self._hurry.wait, clock=self.clock)
            self._hurry.clear()
            self._signal.clear()
            queues = [deque(parts) for parts in self._parts()]
            while queues or self._outdated:
                await self._store([queue.popleft() for queue in queues[:RECORDS_AT_ONCE]])
                queues = [queue for queue in queues if queue]
            self._log_dropped()

    def _parts(self) -> Iterator[Iterator[_Part]]:
        """Take the lines that wait, and yield the parts of each task."""
        with self._lock:
            self._woken = False
            by_task: dict[str, list[tuple[RunLines, list[Line], list[Line]]]] = {}
            for run in self._waiting:
                by_task.setdefault(run.task_id, []).append((run, *run.take()))
            self._waiting.clear()
        flush = next(self._flushes)
        for task_id, taken in by_task.items():
            yield self._parts_of(task_id, flush, taken)

    @cached_property
    def _writer(self) -> str:
        return token_hex(6)

    def _parts_of(
        self, task_id: str, flush: int, taken: Iterable[tuple[RunLines, list[Line], list[Line]]]
    ) -> Iterator[_Part]:
        """Yield the parts of a task: first those that its runs share."""
        numbers = count()

        def record(lines: Sequence[Line]) -> KeyedRecord:
            data = [line.data for line in lines]
            return log_record(
                task_id, self._writer, flush, next(numbers), worker=self._worker_id, lines=data
            )

        first = list(merge(*(first for _, first, _ in taken), key=lambda line: line.at))
        for lines in cut(first, MOST_RECORD_LINES, MOST_RECORD_BYTES):
            yield _Part(record(lines), lines)
        for run, _, newest in taken:
            for lines in run.parts(newest):
                yield _Part(record(lines), lines, run)

    async def _store(self, parts: Sequence[_Part]) -> None:
        """Store at most one part of each task, and delete records that are outdated then."""
        for part in parts:
            if part.newest_of is not None:
                self._outdated += part.newest_of.note_stored(part.record.key, part.lines)
        outdated = self._outdated[:RECORDS_AT_ONCE]
        del self._outdated[:RECORDS_AT_ONCE]
        deletions = [RecordDeletion(KIND, key) for key in outdated]
        await self._change(
            [
                *(RecordChange(token_hex(8), [part.record], durable=False) for part in parts),
                *(RecordChange(token_hex(8), delete=[one], durable=False) for one in deletions),
            ]
        )
        with self._lock:
            for line in chain.from_iterable(part.lines for part in parts):
                self._waiting_bytes -= len(line.data)
                line.run.unsettled -= 1
        self._progress.set()

    async def _change(self, changes: Sequence[RecordChange]) -> None:
        change = partial(self._records.change, changes)
        try:
            await patiently(change, clock=self.clock, what="store log lines")
            self._late = False
        except Exception as error:
            if len(changes) > 1:
                # One by one, only the faulty change fails.
                for one in changes:
                    await self._change([one])
                return
            logger.warning(
                "Log lines are lost: %s", error_text(error), extra={"action": "log_lines_lost"}
            )

    def _log_dropped(self) -> None:
        notices = notices_of(self.clock)
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            notices.trouble(
                logger,
                "log lines",
                f"{dropped} log lines of handlers were dropped: too many wait for the store",
                action="log_lines_dropped",
            )
        elif notices.open:
            notices.over(logger, "log lines")
