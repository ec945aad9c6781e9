"""Waiting for the end of a task, and following its events."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from flowkit._json.limits import LONGEST_SEC
from flowkit._records.record_parts import decode_log
from flowkit._records.task_records import decode_task
from flowkit._runtime.backoff import Backoff
from flowkit._runtime.deadlines import within
from flowkit._tasks.views import event_view
from flowkit.client._queries import view_of
from flowkit.client._session import Session
from flowkit.protocols import TaskRecord
from flowkit.task import LogEntry, Task, TaskEvent, TaskView

FIRST_CHECK_SEC = 30.0
LONGEST_CHECK_SEC = 600.0
"""``wait`` and ``watch`` check the record of an unchanged task for damage after pauses that double
up to this.
"""
PAGE = 500


async def wait_for_end(session: Session, task_id: str, timeout: float | None) -> TaskView:
    """Return the task when it has ended."""
    timeout = _checked_timeout(timeout)
    clock, pauses = session.clock, _check_pauses()
    give_up_at = inf if timeout is None else clock.monotonic() + timeout
    while True:
        record = await session.record(task_id)
        task = _decode_awaited(record)
        if task.terminal:
            return await view_of(session, task)
        left_sec = give_up_at - clock.monotonic()
        if left_sec <= 0:
            raise TimeoutError(
                f"task {task_id!r} is still {record.header.status} after {timeout:g} s"
            )
        await _wait_for_change(
            session, task_id, 0, ended=True, at_most_sec=min(left_sec, pauses.next_sec())
        )


async def watch(session: Session, task_id: str) -> AsyncIterator[TaskEvent]:
    """Yield every event of a task in order until it has ended."""
    read, version, pauses = _ReadEvents(), 0, _check_pauses()
    while True:
        record = await session.record(task_id)
        task = _decode_awaited(record, has_changed=0 < version < record.version)
        if record.version != version:
            version, pauses = record.version, _check_pauses()
        async for event in _new_events(session, task, record, read):
            yield event
        if task.terminal:
            return
        await _wait_for_change(session, task_id, version, at_most_sec=pauses.next_sec())


@dataclass(slots=True)
class _ReadEvents:
    """Position in the history of a task."""

    seq: int = 0
    """The number of the last event that was read."""
    part: str = ""
    """The last part of the archive that was read. Events that were read from the record since then
    may be in the archive by now, under an earlier name.
    """

    def new_in(self, name: str, data: bytes) -> Iterator[tuple[int, LogEntry]]:
        for seq, entry in decode_log(name, data):
            if seq > self.seq:
                self.seq = seq
                yield seq, entry


async def _new_events(
    session: Session, task: Task, record: TaskRecord, read: _ReadEvents
) -> AsyncIterator[TaskEvent]:
    live = sorted(name for name in record.parts if name[0] == "e")
    if read.seq < task.seq and (not live or int(live[0][1:]) > read.seq + 1):
        while page := await session.store.scan_archive(
            task.task_id, prefix="e", after=read.part, limit=PAGE
        ):
            for name, data in page:
                for seq, entry in read.new_in(name, data):
                    yield event_view(task, seq, entry)
                read.part = name
    for name in live:
        for seq, entry in read.new_in(name, record.parts[name]):
            yield event_view(task, seq, entry)


async def _wait_for_change(
    session: Session, task_id: str, version: int, *, ended: bool = False, at_most_sec: float
) -> None:
    """Return when the stored version is above ``version``, and the task has ended if ``ended``, or
    after ``at_most_sec``.

    A store does not report damage as a change: the caller checks the record again when this
    returns.
    """
    await within(
        at_most_sec,
        lambda: session.store.wait_for_change(task_id, version, ended=ended),
        clock=session.clock,
    )


def _decode_awaited(record: TaskRecord, *, has_changed: bool = False) -> Task:
    """Return a task that has ended, or that a coordinator can continue.

    The full check takes long for large graphs. It is left out for a task that ``has_changed`` since
    the last check: it makes progress.

    Raises:
        CorruptRecord: it is neither. Coordinators quarantine such a task, so it never ends.
    """
    return decode_task(record, to_look_at=has_changed or record.header.finished_at is not None)


def _check_pauses() -> Backoff:
    """Return the pauses between checks of a task that does not change."""
    return Backoff(first_sec=FIRST_CHECK_SEC, longest_sec=LONGEST_CHECK_SEC)


def _checked_timeout(timeout: Any) -> float | None:
    """Return how many seconds to wait at most, None for no limit.

    Raises:
        ValueError: this is not a number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise ValueError(f"timeout is a number of seconds or None, not {timeout!r}")
    return None if timeout > LONGEST_SEC else max(timeout, 0)
