"""Reads of records, inputs and artifacts from the store."""

from collections.abc import Collection, Sequence
from typing import Any

from pydantic_core import from_json

from flowkit._engine import sources_of
from flowkit._records.node_packs import decode_pack, pack_part
from flowkit._records.record_parts import corrupt, decode_node, node_part
from flowkit._records.task_records import decode_task
from flowkit.errors import CorruptRecord, NodeFailure, TaskNotFound
from flowkit.messages import Source
from flowkit.protocols import (
    ArtifactRecord,
    ArtifactStore,
    Store,
    Stream,
)
from flowkit.task import ENDED, Mark, NodeRecord, Task

MOST_RECALLED = 256
"""Archived records that are cached with a task: a parent may have thousands of children that read
its result.
"""


async def tasks_to_look_at(store: Store, task_ids: Collection[str]) -> dict[str, Task | None]:
    """Return those of these tasks that are stored, without the fields that the engine derives; None
    for those that cannot be read.
    """
    tasks: dict[str, Task | None] = {}
    for task_id, record in (await store.load(sorted(task_ids))).items() if task_ids else ():
        try:
            tasks[task_id] = decode_task(record, to_look_at=True)
        except CorruptRecord:
            tasks[task_id] = None
    return tasks


async def records_of(store: Store, task: Task, indexes: Collection[int]) -> dict[int, NodeRecord]:
    """Return the records of these nodes, from the task or from its archive. A node that never
    started has none.
    """
    found = {}
    archived = []
    for index in indexes:
        record = task.records.get(index) or task.recalled.get(index)
        if record is not None:
            found[index] = record
        elif task.marks[index] in ENDED:
            archived.append(index)
    if archived:
        parts = await archived_nodes(store, task, archived)
        task_id, ids = task.task_id, task.spec.plan.ids
        recalled = {index: decode_node(data, task_id, ids[index]) for index, data in parts.items()}
        found.update(recalled)
        if len(recalled) <= MOST_RECALLED:
            if len(task.recalled) + len(recalled) > MOST_RECALLED:
                task.recalled.clear()
            task.recalled.update(recalled)
    return found


async def archived_nodes(store: Store, task: Task, indexes: Collection[int]) -> dict[int, bytes]:
    """Return the parts of these nodes from the archive of their task, by index. A node that never
    started has none.

    Raises:
        CorruptRecord: one of them cannot be decoded.
    """
    packed = [index for index in indexes if task.is_packed(index)]
    apart = {node_part(index): index for index in indexes if not task.is_packed(index)}
    names = [*dict.fromkeys(map(pack_part, packed)), *apart]
    found: dict[int, bytes] = {}
    of_packs: dict[int, bytes] = {}
    for name, data in (await store.read_archive(task.task_id, names)).items():
        if name in apart:
            found[apart[name]] = data
        else:
            try:
                of_packs |= decode_pack(data)
            except ValueError as error:
                raise corrupt(f"the pack {name!r} of task {task.task_id!r}", error) from None
    found.update((index, of_packs[index]) for index in packed if index in of_packs)
    return found


async def results_of(store: Store, task: Task, indexes: Sequence[int]) -> dict[str, Any]:
    """Return the results of the finished ones of these nodes, by node id."""
    finished = [index for index in indexes if task.marks[index] == Mark.FINISHED]
    records = await records_of(store, task, finished)
    return {
        task.spec.plan.ids[index]: records[index].result if index in records else None
        for index in finished
    }


async def errors_of(store: Store, task: Task, indexes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return the ``reason_code``, ``error`` and ``attempt`` of the failed ones of these nodes, by
    node id.
    """
    if Mark.FAILED not in task.marks:
        return {}
    failed = [index for index in indexes if task.marks[index] == Mark.FAILED]
    records = await records_of(store, task, failed)
    return {
        task.spec.plan.ids[index]: {
            "reason_code": record.reason_code,
            "error": record.error,
            "attempt": record.attempt,
        }
        for index, record in records.items()
    }


async def load_task(store: Store, task_id: str) -> Task:
    """Load a task from the store.

    Raises:
        TaskNotFound: there is no such task.
        CorruptRecord: its record is damaged.
    """
    record = (await store.load([task_id])).get(task_id)
    if record is None:
        raise TaskNotFound(task_id)
    return decode_task(record)


async def sources(store: Store, task_id: str, index: int) -> tuple[Source, ...]:
    """Return the streams that a node may read, and whether they have ended.

    Raises:
        TaskNotFound: there is no such task.
    """
    task = await load_task(store, task_id)
    indexes = sources_of(task, index)
    return sources_from(task, indexes, await records_of(store, task, indexes))


def sources_from(
    task: Task, indexes: Sequence[int], records: dict[int, NodeRecord]
) -> tuple[Source, ...]:
    """Return these streams of a loaded task."""
    return tuple(_source(task, parent, records.get(parent) or NodeRecord()) for parent in indexes)


def _source(task: Task, parent: int, record: NodeRecord) -> Source:
    finished = task.marks[parent] == Mark.FINISHED
    return Source(
        node_id=task.spec.plan.ids[parent],
        generation=record.generation,
        ended=task.marks[parent] in ENDED,
        batches=record.batches if finished else None,
        result_only=finished and has_only_a_result(record),
        kept=record.kept if finished else (),
        shards=task.spec.plan.nodes[parent].io.shards or 0,
    )


def has_only_a_result(record: NodeRecord) -> bool:
    """Return whether a finished node was called once and gave a result, so that it cannot have
    artifacts.
    """
    return record.result is not None and not record.in_batches


def no_artifacts_error(node_id: str, *, use: str, instead: str) -> str:
    """Return the error of a node that would ``use`` the artifacts of such a node."""
    return (
        f"node {node_id!r} finished with a result and stored no artifacts, so there is nothing to"
        f" {use}; {instead}, or let it store artifacts"
    )


async def artifact_page(
    artifacts: ArtifactStore, stream: Stream, *, after: int, limit: int, latest: bool = False
) -> Sequence[ArtifactRecord]:
    """Read the next records of a stream. Positions have no gaps, so a missing record was lost.

    Raises:
        NodeFailure: ``artifact_lost``; a record before one that is stored is missing.
    """
    page = await artifacts.read(stream, after=after, limit=limit, latest=latest)
    if not latest and _missing_position(page, after) is not None:
        page = await artifacts.read(stream, after=after, limit=limit, latest=True)
    missing = _missing_position(page, after)
    if missing is not None:
        raise artifact_lost(
            stream, f"artifact {missing} of the node is missing, though later ones are stored"
        )
    return page


def check_complete(stream: Stream, *, stored: int | None, found: int) -> None:
    """Check that no batch of a stream is missing. ``stored`` is the number of batches that its node
    had stored when it finished; None if it has not finished.

    Raises:
        NodeFailure: ``artifact_lost``; fewer batches were ``found``.
    """
    if stored is not None and found < stored:
        raise artifact_lost(stream, f"it stored {stored} batches, and only {found} exist")


def artifact_meta(record: ArtifactRecord) -> dict[str, Any] | None:
    """Return the ``artifacts_ref`` that the handler gave.

    Raises:
        CorruptRecord: the artifact is damaged.
    """
    if record.meta is None:
        return None
    try:
        meta = from_json(record.meta)
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        stream = record.stream
        raise CorruptRecord(
            f"artifact {record.uid!r} of node {stream.node_id!r} of task {stream.task_id!r} is"
            " damaged: it is not a JSON object"
        )
    return meta


def artifact_lost(stream: Stream, what: str) -> NodeFailure:
    """Return the failure of a node whose input was lost in the store."""
    return NodeFailure(
        f"node {stream.node_id!r} of task {stream.task_id!r}: {what}",
        reason_code="artifact_lost",
        permanent=True,
    )


def _missing_position(page: Sequence[ArtifactRecord], after: int) -> int | None:
    for expected, record in enumerate(page, after + 1):
        if record.position != expected:
            return expected
    return None
