"""New tasks from old ones."""

from collections.abc import Mapping
from typing import Any

from flowkit._records.task_records import decode_submission, decode_task
from flowkit.client._session import Rerun, Session
from flowkit.errors import TaskRefused


async def rerun(
    session: Session,
    task_id: str,
    *,
    params: Mapping[str, Any] | None,
    flow_version: int | None,
    idempotency_key: str | None,
) -> str:
    """Submit the graph and the params of a task again. The graph is that of the task, not that
    which another installation may have registered under the same name.
    """
    record = await session.record(task_id)
    spec = decode_task(record, to_look_at=True).spec
    first = decode_submission(record)
    given: Any = first.params if params is None else params
    if isinstance(params, Mapping):
        given = first.params | dict(params)
    if flow_version is not None and spec.flow is None:
        raise TaskRefused(
            f"task {task_id!r} has a graph of its own, and no other version of it; leave out the"
            " flow version"
        )
    same = flow_version is None or spec.flow is None
    return await session.create_task(
        first.graph if same else None,
        given,
        flow=None if same or spec.flow is None else spec.flow.name,
        version=flow_version,
        task_id=None,
        idempotency_key=idempotency_key,
        rerun=Rerun(task_id, spec.flow),
        pipeline=spec.pipeline,
        labels=spec.labels,
        priority=spec.priority,
        deadline_sec=spec.deadline_sec,
    )
