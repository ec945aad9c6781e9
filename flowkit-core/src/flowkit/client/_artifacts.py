"""Artifacts of a task."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import chain

from flowkit._records.artifact_scan import scan_artifacts
from flowkit._records.queries import artifact_meta, records_of
from flowkit._records.task_records import decode_task
from flowkit.client._nodes import current_nodes
from flowkit.client._session import Session, index_of
from flowkit.protocols import utc
from flowkit.task import Artifact, Mark


async def read_artifacts(
    session: Session, task_id: str, node_id: str | None
) -> AsyncIterator[Artifact]:
    """Yield the artifacts of a task, or of one of its nodes, in order of production."""
    store = session.store
    task = decode_task(await session.record(task_id))
    plan = task.spec.plan
    named = [[index_of(task, node_id)]] if node_id is not None else current_nodes(task)
    indexes = list(chain.from_iterable(named))
    records = await records_of(store, task, indexes)
    found = scan_artifacts(
        store.artifacts,
        task_id,
        generations={
            plan.ids[index]: records[index].generation if index in records else 0
            for index in indexes
        },
        batches={
            plan.ids[index]: record.batches
            for index, record in records.items()
            if task.marks[index] == Mark.FINISHED
        },
    )
    async with aclosing(found) as items:
        async for item in items:
            if item.meta is not None:
                yield Artifact(
                    task_id=task_id,
                    node_id=item.stream.node_id,
                    uid=item.uid,
                    partial=item.partial,
                    meta=artifact_meta(item),
                    created_at=utc(item.created_at),
                )
