"""Queries: tasks as they are now, their ends, their events, and explanations of their nodes."""

from collections.abc import AsyncIterator
from functools import partial
from math import inf
from typing import Any, get_args

import anyio.lowlevel
from pydantic_core import from_json

from flowkit._json.limits import LONGEST_SEC
from flowkit._records.history import HistoryReader
from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_submission, decode_task
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import Backoff
from flowkit._tasks.views import event_view, full_view, read_nodes
from flowkit.client._figures import records_found
from flowkit.client._session import Session, check_is_text
from flowkit.errors import CorruptRecord, PayloadError
from flowkit.protocols import TaskQuery, TaskRecord, utc
from flowkit.task import NodesShown, Page, Task, TaskEvent, TaskStatus, TaskView

_STATUSES = frozenset(status.value for status in TaskStatus)
UNCHECKED_SEC = 2.0
"""``wait`` checks the record of a task for damage after this time. Most tasks end before, and the
check takes longer than the wait.
"""
FIRST_CHECK_SEC = 30.0
"""``watch`` checks the record of an unchanged task for damage after this time."""
LONGEST_CHECK_SEC = 600.0
"""The pauses between two checks double up to this."""

_check_pauses = partial(Backoff, first_sec=FIRST_CHECK_SEC, longest_sec=LONGEST_CHECK_SEC)


async def get_task(session: Session, task_id: str, nodes: NodesShown = "all") -> TaskView:
    """Return a task as it is now."""
    _check_shown(nodes)
    task = decode_task(await session.record(task_id), to_look_at=True)
    return await view_of(session, task, nodes)


def _check_shown(nodes: Any) -> None:
    if nodes not in get_args(NodesShown):
        raise ValueError(f"nodes is one of {', '.join(get_args(NodesShown))}, not {nodes!r}")


async def view_of(session: Session, task: Task, shown: NodesShown = "all") -> TaskView:
    """Return the view of a task with these nodes."""
    records = await records_of(session.store, task, read_nodes(task, shown))
    return full_view(task, records, shown)


async def get_graph(session: Session, task_id: str) -> dict[str, Any]:
    """Return the graph of a task as it was submitted."""
    graph: dict[str, Any] = from_json(decode_submission(await session.record(task_id)).graph)
    return graph


async def list_tasks(
    session: Session, query: TaskQuery, nodes: NodesShown = "all"
) -> Page[TaskView]:
    """Return a page of the tasks that match, newest first."""
    _check_shown(nodes)
    records, following = await session.store.list_tasks(query)
    return Page([await _listed(session, record, nodes) for record in records], following)


async def count_tasks(session: Session, query: TaskQuery, most: int) -> int:
    """Return the number of tasks that match, at most ``most``. No task is decoded."""
    found = 0
    async for _ in records_found(session, query, most):
        found += 1
    return found


async def _listed(session: Session, record: TaskRecord, nodes: NodesShown) -> TaskView:
    """Return the view of a task for a list. A task that cannot be decoded is shown with the error,
    so that it does not hide the others.
    """
    try:
        return await view_of(session, decode_task(record, to_look_at=True), nodes)
    except (CorruptRecord, PayloadError) as error:
        header = record.header
        known = header.status in _STATUSES
        return TaskView(
            id=header.task_id,
            pipeline=header.pipeline,
            status=TaskStatus(header.status) if known else TaskStatus.QUEUED,
            labels=dict(header.labels),
            error=str(error),
            created_at=utc(header.created_at),
            finished_at=None if header.finished_at is None else utc(header.finished_at),
        )


# ---------------------------------------------------------------- ends and events


async def wait_for_end(session: Session, task_id: str, timeout: float | None) -> TaskView:
    """Return the task when it has ended."""
    timeout = _checked_timeout(timeout)
    check_is_text(task_id, "task")
    clock, pauses = session.clock, Backoff(first_sec=UNCHECKED_SEC, longest_sec=LONGEST_CHECK_SEC)
    give_up_at = inf if timeout is None else clock.monotonic() + timeout
    await anyio.lowlevel.checkpoint()
    task = session.processor.pop_settled(task_id)
    while task is None:
        left_sec = give_up_at - clock.monotonic()
        if left_sec > 0:
            # It returns at once if the task has ended. It does not report damage as a change: the
            # record is checked after each pause.
            end = partial(session.store.wait_for_change, task_id, 0, ended=True)
            await within(min(left_sec, pauses.next_sec()), end, clock=clock)
        task = session.processor.pop_settled(task_id)
        task = task or _decode_awaited(await session.record(task_id))
        if not task.terminal:
            if clock.monotonic() >= give_up_at:
                raise TimeoutError(f"task {task_id!r} is still {task.status} after {timeout:g} s")
            task = None
    return await view_of(session, task)


async def watch(session: Session, task_id: str, after: int) -> AsyncIterator[TaskEvent]:
    """Yield the events of a task after this one in order until it has ended."""
    history, version, pauses = HistoryReader(session.store, after), 0, _check_pauses()
    while True:
        record = await session.record(task_id, together=version > 0)
        # The full check takes long for large graphs. A task that has changed makes progress.
        has_changed = 0 < version < record.version
        task = session.seen(record) if has_changed else _decode_awaited(record)
        if record.version != version:
            version, pauses = record.version, _check_pauses()
        async for seq, entry in history.read(record, task.seq):
            yield event_view(task, seq, entry)
        if task.terminal:
            return
        change = partial(session.store.wait_for_change, task_id, version, ended=False)
        await within(pauses.next_sec(), change, clock=session.clock)


def _decode_awaited(record: TaskRecord) -> Task:
    """Return a task that has ended, or that a coordinator can continue.

    Raises:
        CorruptRecord: it is neither. A coordinator quarantines such a task when it reads it.
    """
    return decode_task(record, to_look_at=record.header.finished_at is not None)


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
