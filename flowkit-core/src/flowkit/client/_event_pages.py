"""Events of a task in pages: from the first, or from the newest."""

from contextlib import aclosing

from flowkit._records.history import HistoryReader
from flowkit._records.task_records import decode_task
from flowkit._tasks.views import event_view
from flowkit.client._nodes import page_position
from flowkit.client._session import Session, index_of
from flowkit.client._task_filters import checked_limit
from flowkit.protocols import TaskRecord
from flowkit.task import Page, Task, TaskEvent

SPAN = 1_000
"""Changes that are read at first to find the newest ones. The next spans are larger."""


async def list_events(
    session: Session,
    task_id: str,
    *,
    node_id: str | None,
    limit: int,
    after: str | None,
    newest_first: bool,
) -> Page[TaskEvent]:
    """Return a page of the events of a task, or of one of its nodes."""
    checked_limit(limit)
    position = None if after is None else page_position(after)
    record = await session.record(task_id)
    reader = _EventReader(session, record, node_id)
    if newest_first:
        found = await reader.newest(reader.task.seq + 1 if position is None else position, limit)
    else:
        found = await reader.between(position or 0, reader.task.seq + 1, limit + 1)
    return Page(found[:limit], str(found[limit - 1].seq) if len(found) > limit else None)


class _EventReader:
    """Reader of the events of one record, or of those of one node in it."""

    def __init__(self, session: Session, record: TaskRecord, node_id: str | None) -> None:
        self.task: Task = decode_task(record, to_look_at=True)
        self._store = session.store
        self._record = record
        self._index = None if node_id is None else index_of(self.task, node_id)

    async def between(self, after: int, before: int, most: int | None = None) -> list[TaskEvent]:
        """Return the events between two numbers in order, and no more than ``most``."""
        found: list[TaskEvent] = []
        history = HistoryReader(self._store, after)
        async with aclosing(history.read(self._record, self.task.seq)) as entries:
            async for seq, entry in entries:
                if seq >= before or len(found) == most:
                    break
                if self._index in (None, entry[1]):
                    found.append(event_view(self.task, seq, entry))
        return found

    async def newest(self, before: int, limit: int) -> list[TaskEvent]:
        """Return the events before a number, the newest first, and one more than the limit if
        there are more.
        """
        found: list[TaskEvent] = []
        span = max(SPAN, limit)
        while before > 1 and len(found) <= limit:
            after = max(0, before - 1 - span)
            found += reversed(await self.between(after, before))
            before, span = after + 1, span * 2
        return found[: limit + 1]
