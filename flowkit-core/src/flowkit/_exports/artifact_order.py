"""Artifacts of an ended task in the order of their positions, which an import has to repeat.

The task gets no artifacts any more, and those that it has were stored before its end.
"""

from collections.abc import AsyncIterator, Collection

from flowkit._records.queries import artifact_lost
from flowkit.protocols import ArtifactRecord, ArtifactStore, Stream

RECORDS_AT_ONCE = 500
RECORD_BYTES = 500
"""Memory of a record without its data."""


async def artifacts_in_order(
    artifacts: ArtifactStore, task_id: str, *, memory_bytes: int
) -> AsyncIterator[ArtifactRecord]:
    """Yield the artifacts of a task, one stream after the other, each in order.

    Raises:
        NodeFailure: ``artifact_lost``; one is missing.
        CorruptRecord: one of them cannot be decoded.
    """
    streams: set[Stream] = set()
    records: list[ArtifactRecord] | None = []
    size, cursor = 0, None
    while found := await artifacts.scan(task_id, after=cursor, limit=RECORDS_AT_ONCE):
        cursor = found[-1][0]
        streams.update(record.stream for _, record in found)
        size += sum(_size(record) for _, record in found)
        if records is not None and size <= memory_bytes:
            records += (record for _, record in found)
        else:
            records = None
    if records is None:
        async for record in _read(artifacts, sorted(streams)):
            yield record
    else:
        records.sort(key=lambda record: (record.stream, record.position))
        positions = dict.fromkeys(streams, 0)
        for record in records:
            positions[record.stream] += 1
            _check(record, positions[record.stream])
            yield record


async def _read(
    artifacts: ArtifactStore, streams: Collection[Stream]
) -> AsyncIterator[ArtifactRecord]:
    """Read the artifacts of more streams than fit into the memory."""
    for stream in streams:
        position = 0
        while page := await artifacts.read(stream, after=position, limit=RECORDS_AT_ONCE):
            for record in page:
                position += 1
                _check(record, position)
                yield record


def _check(record: ArtifactRecord, position: int) -> None:
    if record.position != position:
        raise artifact_lost(record.stream, f"artifact {position} is missing")


def _size(record: ArtifactRecord) -> int:
    return RECORD_BYTES + len(record.meta or b"") + len(record.metrics)
