"""Comparison of records in an export with those in a store."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from flowkit._records.letter_records import KIND as LETTER
from flowkit.protocols import ArchivedPart, ArtifactRecord, KeyedRecord, Store, Stream, TaskRecord

NOT_COMPARED = {"header", "version", "fault"}
"""Fields of a record. An import adds to the version."""


def task_difference(stored: TaskRecord, given: TaskRecord) -> str | None:
    """Return what differs between two records of a task, or None."""
    if stored.fault is not None:
        return f"the stored record is damaged: {stored.fault}"
    for name in (item.name for item in fields(given.header)):
        there, here = getattr(stored.header, name), getattr(given.header, name)
        if there != here:
            return f"its {name} is {_short(there)} in the store and {_short(here)} in the export"
    differing = [
        item.name
        for item in fields(given)
        if item.name not in NOT_COMPARED and getattr(stored, item.name) != getattr(given, item.name)
    ]
    return f"its {' and '.join(differing)} differ" if differing else None


def _short(value: Any) -> str:
    return f"{value!r:.80}"


async def archive_difference(
    store: Store, task_id: str, parts: Sequence[ArchivedPart]
) -> str | None:
    """Return what differs between these archived parts and the stored ones, or None."""
    if not parts:
        return None
    stored = await store.read_archive(task_id, [part.name for part in parts])
    different = [part.name for part in parts if stored.get(part.name) != part.data]
    return f"its archived part {different[0]!r} differs" if different else None


async def artifact_difference(store: Store, records: Sequence[ArtifactRecord]) -> str | None:
    """Return what differs between artifacts of a task and the stored ones, or None."""
    streams: dict[Stream, list[ArtifactRecord]] = {}
    for record in records:
        streams.setdefault(record.stream, []).append(record)
    for stream, given in streams.items():
        if given != await _stored(store, given) and given != await _stored(
            store, given, latest=True
        ):
            return f"the artifacts of its node {stream.node_id!r:.80} differ"
    return None


async def _stored(
    store: Store, given: Sequence[ArtifactRecord], *, latest: bool = False
) -> list[ArtifactRecord]:
    """Return the stored artifacts at the positions of these ones, which are in one stream."""
    return list(
        await store.artifacts.read(
            given[0].stream, after=given[0].position - 1, limit=len(given), latest=latest
        )
    )


async def different_letters(store: Store, letters: Sequence[KeyedRecord]) -> list[str]:
    """Return the ids of those dead letters that the store has with other contents."""
    given = {letter.key: letter for letter in letters}
    stored = await store.records.get(LETTER, given)
    return [name for name, letter in stored.items() if letter.data != given[name].data]
