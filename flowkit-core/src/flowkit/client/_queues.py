"""Queues: the nodes that wait for workers, by role."""

from dataclasses import dataclass

from flowkit._engine import waiting_tag
from flowkit._records.task_records import decode_task
from flowkit.client._figures import records_found
from flowkit.client._session import Session
from flowkit.errors import CorruptRecord, PayloadError
from flowkit.protocols import TaskQuery, utc
from flowkit.task import Mark, QueueView, Task

MOST_TASKS = 1_000
"""Number of the oldest waiting tasks whose nodes count."""
_WAITING = TaskQuery(tags=[waiting_tag("worker")], oldest_first=True)


@dataclass(slots=True)
class _Queue:
    waiting: int = 0
    oldest_at: float = float("inf")


async def list_queues(session: Session) -> list[QueueView]:
    """Return the queues of the oldest tasks with a waiting node, by role."""
    queues: dict[str, _Queue] = {}
    found = 0
    async for record in records_found(session, _WAITING, MOST_TASKS + 1):
        found += 1
        if found > MOST_TASKS:
            break
        try:
            _add(queues, decode_task(record, to_look_at=True))
        except (CorruptRecord, PayloadError):
            continue  # no worker gets a node of a damaged task
    return [
        QueueView(
            role=role,
            waiting=queue.waiting,
            oldest_at=utc(queue.oldest_at),
            limited=found > MOST_TASKS,
        )
        for role, queue in sorted(queues.items())
    ]


def _add(queues: dict[str, _Queue], task: Task) -> None:
    """Add the nodes of a task that are issued and not started."""
    for index, record in task.records.items():
        if task.marks[index] == Mark.ISSUED:
            queue = queues.setdefault(task.spec.plan.nodes[index].type, _Queue())
            queue.waiting += 1
            queue.oldest_at = min(queue.oldest_at, record.issued_at)
