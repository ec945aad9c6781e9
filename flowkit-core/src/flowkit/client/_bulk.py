"""Changes of all tasks that match a filter."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from flowkit._engine import CancelRequested, Event, RetryRequested
from flowkit._records.parents import check_retried_alone
from flowkit._records.task_records import decode_task
from flowkit._user_code.containment import error_text
from flowkit.client._session import Session
from flowkit.client._task_filters import OPEN
from flowkit.errors import CorruptRecord, PayloadError, TaskRefused
from flowkit.protocols import TaskQuery, TaskRecord
from flowkit.task import BulkProgress, TaskStatus

logger = logging.getLogger(__name__)

TASKS_AT_ONCE = 50
"""Tasks that are read and changed together."""
RETRIED = [TaskStatus.FAILED.value, TaskStatus.CANCELLED.value]

OnProgress = Callable[[BulkProgress], None]


async def cancel_tasks(
    session: Session, query: TaskQuery, event: CancelRequested, on_progress: OnProgress | None
) -> int:
    """Cancel all tasks that match and have not ended. Return how many it changed."""
    return await _change_tasks(session, query, OPEN, event, on_progress)


async def retry_tasks(session: Session, query: TaskQuery, on_progress: OnProgress | None) -> int:
    """Retry all failed and cancelled tasks that match. Return how many it changed."""
    return await _change_tasks(session, query, RETRIED, RetryRequested(), on_progress)


async def _change_tasks(
    session: Session,
    query: TaskQuery,
    statuses: Collection[str],
    event: Event,
    on_progress: OnProgress | None,
) -> int:
    """Change the tasks page by page, the newest first. A task keeps its place in the list, so a
    change moves no task to another page.
    """
    report = on_progress or _log_refusals()
    done = BulkProgress()
    chosen = [status for status in query.statuses or statuses if status in statuses]
    query = replace(query, statuses=chosen, limit=TASKS_AT_ONCE)
    following = query.after
    while chosen:
        records, following = await session.store.list_tasks(replace(query, after=following))
        done = _sum(done, await _change_page(session, records, event))
        report(done)
        if following is None:
            break
    return done.changed


def _log_refusals() -> OnProgress:
    """Return a function that logs each task that could not be changed, once."""
    logged = set[str]()

    def log(progress: BulkProgress) -> None:
        for task_id in progress.refused.keys() - logged:
            logger.warning(
                "Task %s was not changed: %s",
                task_id,
                progress.refused[task_id],
                extra={"action": "task_not_changed", "task_id": task_id},
            )
        logged.update(progress.refused)

    return log


def _sum(one: BulkProgress, other: BulkProgress) -> BulkProgress:
    return BulkProgress(
        one.found + other.found, one.changed + other.changed, {**one.refused, **other.refused}
    )


async def _change_page(
    session: Session, records: Sequence[TaskRecord], event: Event
) -> BulkProgress:
    """Change these tasks. One that cannot be changed stops no other."""
    refused: dict[str, str] = {}
    changing = {record.header.task_id: record for record in records}
    if isinstance(event, RetryRequested):
        refused = await _without_a_retry(session, records)
        changing = {one: record for one, record in changing.items() if one not in refused}
    unchanged: set[str] = set()
    if changing:
        outcome = await session.change_all(event, changing)
        refused |= {task_id: error_text(why) for task_id, why in outcome.quarantined.items()}
        refused |= _damaged({task_id: changing[task_id] for task_id in outcome.missing})
        unchanged = {*outcome.missing, *outcome.quarantined, *outcome.unchanged}
    return BulkProgress(len(records), len(changing.keys() - unchanged), refused)


async def _without_a_retry(session: Session, records: Sequence[TaskRecord]) -> dict[str, str]:
    """Return the tasks that cannot be retried alone, with the reasons."""
    found = {}
    for record in records:
        try:
            await check_retried_alone(session.store, decode_task(record, to_look_at=True))
        except (TaskRefused, CorruptRecord, PayloadError) as error:
            found[record.header.task_id] = str(error)
    return found


def _damaged(records: Mapping[str, TaskRecord]) -> dict[str, str]:
    """Return those of these missing tasks that cannot be read. The others were deleted."""
    found = {}
    for task_id, record in records.items():
        try:
            decode_task(record)
        except (CorruptRecord, PayloadError) as error:
            found[task_id] = str(error)
    return found
