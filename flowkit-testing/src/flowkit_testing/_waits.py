"""Reasons why a task has not ended."""

from flowkit import Client
from flowkit._records.heartbeats import why_unserved
from flowkit._records.task_records import decode_task
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit._tasks.explanations import running_child
from flowkit.protocols import Store
from flowkit.task import ENDED, UNUSED_PLACE, Mark, Task

MOST_EXPLAINED = 3

_BEFORE = frozenset({Mark.HELD, Mark.WAITING})
"""Marks of nodes that wait for other nodes."""

_FOLLOWS = _BEFORE | ENDED | {UNUSED_PLACE, Mark.READY, Mark.MAPPING, Mark.CLOSING}
"""Marks of nodes that do not go on before another one of the task."""


async def explain_task(client: Client, task_id: str) -> str:
    """Return why nodes of a task are not running: those that have begun, else the first one."""
    task = await _task(client.store, task_id)
    if task is None:
        return ""
    still = [index for index, mark in enumerate(task.marks) if mark not in {*ENDED, UNUSED_PLACE}]
    begun = [index for index in still if task.marks[index] not in _BEFORE]
    shown = (begun or still[:1])[:MOST_EXPLAINED]
    return " ".join([await client.explain(task_id, task.spec.plan.ids[index]) for index in shown])


async def lacks_workers(client: Client, task_id: str) -> bool:
    """Return whether a task waits for nothing but workers, and none serves the roles of its nodes
    and of those of its child tasks. It is False if a time limit will end the wait.
    """
    sessions = await sessions_of(client.store)
    return await _lacks(client, task_id, sessions)


async def _lacks(client: Client, task_id: str, sessions: list[WorkerSession]) -> bool:
    task = await _task(client.store, task_id)
    if task is None or task.deadline_at is not None:
        return False
    now, found = client.clock.now(), False
    for index, mark in enumerate(task.marks):
        if mark in _FOLLOWS:
            continue
        if mark == Mark.ISSUED:
            node = task.spec.plan.nodes[index]
            lacking = (
                node.timeouts.schedule_to_start_sec is None
                and why_unserved(sessions, node.type, now) is not None
            )
        else:
            child_id = running_child(task, index, task.records)
            lacking = child_id is not None and await _lacks(client, child_id, sessions)
        if not lacking:
            return False
        found = True
    return found


async def _task(store: Store, task_id: str) -> Task | None:
    record = (await store.load([task_id])).get(task_id)
    return None if record is None else decode_task(record, to_look_at=True)
