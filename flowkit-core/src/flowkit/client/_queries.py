"""Views of tasks, and explanations of their nodes."""

from collections.abc import Collection, Mapping

from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit._runtime.worker_sessions import is_served
from flowkit._tasks.explanations import explain_node, explain_quarantine, keeps_waiting
from flowkit._tasks.views import full_view
from flowkit.client._session import Session, index_of
from flowkit.errors import CorruptRecord, PayloadError
from flowkit.protocols import TaskQuery, TaskRecord, utc
from flowkit.task import Mark, Page, Task, TaskStatus, TaskView

_STATUSES = frozenset(status.value for status in TaskStatus)


async def get_task(session: Session, task_id: str) -> TaskView:
    """Return a task as it is now."""
    return await view_of(session, decode_task(await session.record(task_id), to_look_at=True))


async def view_of(session: Session, task: Task) -> TaskView:
    """Return the view of a task with all its nodes."""
    return full_view(task, await records_of(session.store, task, range(len(task.marks))))


async def list_tasks(
    session: Session,
    *,
    status: str | Collection[str] | None,
    pipeline: str | None,
    labels: Mapping[str, str] | None,
    limit: int,
    after: str | None,
) -> Page[TaskView]:
    """Return a page of the tasks that match, newest first."""
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    query = TaskQuery(
        statuses=_statuses(status),
        pipeline=pipeline,
        labels=labels or {},
        limit=limit,
        after=after,
    )
    records, following = await session.store.list_tasks(query)
    return Page([await _listed(session, record) for record in records], following)


def _statuses(status: str | Collection[str] | None) -> list[TaskStatus]:
    if status is None:
        return []
    return [TaskStatus(name) for name in ([status] if isinstance(status, str) else status)]


async def _listed(session: Session, record: TaskRecord) -> TaskView:
    """Return the view of a task for a list. A task that cannot be decoded is shown with the error,
    so that it does not hide the others.
    """
    try:
        return await view_of(session, decode_task(record, to_look_at=True))
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


async def explain(session: Session, task_id: str, node_id: str) -> str:
    """Return a sentence that says why a node is not running."""
    store, clock = session.store, session.clock
    record = await session.record(task_id)
    letters = await store.dead_letters(task_id=task_id, kind="task")
    letter = max(letters, key=lambda letter: letter.at, default=None)
    try:
        task = decode_task(record)
    except CorruptRecord:
        if letter is None:
            raise
        index_of(decode_task(record, to_look_at=True), node_id)
        return explain_quarantine(letter, now=clock.now())
    index = index_of(task, node_id)
    if letter is not None and keeps_waiting(task, index, record, letter):
        return explain_quarantine(letter, now=clock.now())
    records, now = await records_of(store, task, [index]), clock.now()
    served = task.marks[index] != Mark.ISSUED or await is_served(
        store, task.spec.plan.nodes[index].type, clock
    )
    return explain_node(task, index, records.get(index), now=now, served=served)
