"""Windows: the bounds of the batches into which a node cuts the artifacts that it pulls.

The bounds are stored before their windows are processed, in a stream of their own, so every attempt
of the node has the same windows. The first attempt that decides on bounds wins.
"""

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from flowkit.errors import CorruptRecord
from flowkit.protocols import ArtifactRecord, Stream

Bounds = dict[str, int]
"""For each node of which a window has artifacts, the position of the last one.

The window begins after those before it.
"""
_FIRST_GENERATION = -2
_BOUNDS = TypeAdapter(list[Bounds])


def windows_stream(task_id: str, node_id: str, generation: int) -> Stream:
    """Return the stream of the windows of a node in a generation, whose own is below 0."""
    return Stream(task_id, node_id, _FIRST_GENERATION - generation)


def windows_record(
    stream: Stream, number: int, windows: Sequence[Bounds], *, at: float
) -> ArtifactRecord:
    """Return the record with this number, which has the bounds of consecutive windows."""
    return ArtifactRecord(
        stream=stream,
        uid=str(number),
        partial=False,
        meta=to_json(windows),
        metrics=b"{}",
        created_at=at,
    )


def windows_of(record: ArtifactRecord) -> list[Bounds]:
    """Return the windows of a record.

    Raises:
        CorruptRecord: the record is damaged.
    """
    try:
        return _BOUNDS.validate_json(record.meta or b"")
    except ValidationError:
        stream = record.stream
        raise CorruptRecord(
            f"the windows of node {stream.node_id!r} of task {stream.task_id!r} are damaged"
        ) from None
