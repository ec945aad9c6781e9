"""Early ends of pauses."""

from flowkit._engine import RunNowRequested, pause_end
from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit._tasks.views import shown_status
from flowkit.client._session import Session, index_of
from flowkit.errors import TaskRefused
from flowkit.task import Mark, NodeRecord, Task

_INSTEAD = {
    "signal": "waits for a signal: send it",
    "approval": "waits for a decision: decide",
}


async def run_now(session: Session, task_id: str, node_id: str) -> None:
    """End the pause of a node."""
    event: RunNowRequested | None = None
    while True:
        stored = await session.record(task_id)
        task = decode_task(stored)
        index = index_of(task, node_id)
        record = (await records_of(session.store, task, [index])).get(index, NodeRecord())
        until = pause_end(task.marks[index], record)
        if event is not None and until != event.until:
            return  # this pause has ended meanwhile
        if until is None:
            raise _refusal(task, index, record)
        event = RunNowRequested(index, until)
        if await session.change(task_id, event, stored):
            return


def _refusal(task: Task, index: int, record: NodeRecord) -> TaskRefused:
    mark, wait = task.marks[index], record.wait
    does = f"is {shown_status(task, mark)}"
    if mark == Mark.DEFERRED and wait is not None:
        does = _INSTEAD.get(wait.kind, does)
    return TaskRefused(
        f"node {task.spec.plan.ids[index]!r} of task {task.task_id!r} {does}; it has no pause to"
        " end: it neither sleeps nor waits for its next attempt or round"
    )
