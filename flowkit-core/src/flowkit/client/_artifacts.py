"""Artifacts of a task."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import chain

from flowkit._records.artifact_scan import scan_artifacts, stream_artifacts
from flowkit._records.kept_artifacts import kept_records
from flowkit._records.queries import artifact_meta, records_of
from flowkit._records.shard_uids import prefix_of_shard
from flowkit._records.task_records import decode_task
from flowkit.client._nodes import current_nodes
from flowkit.client._session import Session, index_of
from flowkit.graph._expanded_plan import number_of, stored_by
from flowkit.protocols import ArtifactRecord, Stream, utc
from flowkit.task import Artifact, Mark, NodeRecord


async def read_artifacts(
    session: Session, task_id: str, node_id: str | None
) -> AsyncIterator[Artifact]:
    """Yield the artifacts of a task in order of production, or those of one of its nodes as readers
    get them.

    Those of a shard are in the stream of its node.
    """
    store = session.store
    task = decode_task(await session.record(task_id))
    plan = task.spec.plan
    named = [[index_of(task, node_id)]] if node_id is not None else current_nodes(task)
    indexes = list(chain.from_iterable(named))
    records = await records_of(store, task, indexes)
    kept: list[ArtifactRecord] = []
    generations, batches = dict[str, int](), dict[str, int]()
    prefix = ""
    for index in indexes:
        owner, record = stored_by(plan, index), records.get(index) or NodeRecord()
        if owner != index:
            if node_id is None:
                continue  # the artifacts of its node are among those of the task
            prefix = prefix_of_shard(number_of(plan, index))
        node = plan.ids[owner]
        if record.kept:
            kept += kept_records(Stream(task_id, node, record.generation), record.kept)
            continue
        generations[node] = record.generation
        if task.marks[index] == Mark.FINISHED:
            batches[node] = record.batches
    if node_id is not None and generations:
        ((node, generation),) = generations.items()
        stream, stored = Stream(task_id, node, generation), batches.get(node, 0)
        found = stream_artifacts(store.artifacts, stream, batches=stored, prefix=prefix)
    else:
        found = scan_artifacts(store.artifacts, task_id, generations=generations, batches=batches)
    async with aclosing(_in_order(found, kept)) as items:
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


async def _in_order(
    found: AsyncGenerator[ArtifactRecord, None], kept: Sequence[ArtifactRecord]
) -> AsyncGenerator[ArtifactRecord, None]:
    """Yield the artifacts of the store, and those of records among them by the time of their
    production.
    """
    waiting = deque(sorted(kept, key=lambda one: one.created_at))
    async with aclosing(found) as stored:
        async for record in stored:
            while waiting and waiting[0].created_at <= record.created_at:
                yield waiting.popleft()
            yield record
    for record in waiting:
        yield record
