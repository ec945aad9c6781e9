"""Artifacts that are stored in the record of their node."""

from collections.abc import Sequence

from pydantic_core import from_json, to_json

from flowkit.protocols import ArtifactRecord, Stream
from flowkit.task import KeptArtifact


def kept_artifact(record: ArtifactRecord) -> KeptArtifact:
    """Return the form in which an artifact travels with a report."""
    return KeptArtifact(
        record.uid,
        record.partial,
        None if record.meta is None else from_json(record.meta),
        from_json(record.metrics),
        record.created_at,
    )


def kept_records(stream: Stream, kept: Sequence[KeptArtifact]) -> list[ArtifactRecord]:
    """Return such artifacts as they would be in their stream."""
    return [
        ArtifactRecord(
            stream=stream,
            uid=one.uid,
            partial=one.partial,
            meta=None if one.meta is None else to_json(one.meta),
            metrics=to_json(one.metrics),
            created_at=one.created_at,
            position=position,
        )
        for position, one in enumerate(kept, 1)
    ]
