"""Artifacts that are stored in the record of their node."""

from collections.abc import Sequence

from pydantic_core import to_json

from flowkit.protocols import ArtifactRecord, Stream
from flowkit.task import KeptArtifact


def artifact_record(stream: Stream, one: KeptArtifact, *, position: int = 0) -> ArtifactRecord:
    """Return the record in which an artifact is stored in its stream."""
    return ArtifactRecord(
        stream=stream,
        uid=one.uid,
        partial=one.partial,
        meta=None if one.meta is None else to_json(one.meta),
        metrics=to_json(one.metrics),
        created_at=one.created_at,
        position=position,
    )


def kept_records(stream: Stream, kept: Sequence[KeptArtifact]) -> list[ArtifactRecord]:
    """Return such artifacts as they would be in their stream."""
    return [artifact_record(stream, one, position=position) for position, one in enumerate(kept, 1)]
