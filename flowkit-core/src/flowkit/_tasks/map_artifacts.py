"""Items of maps over artifacts: they are read as they are stored."""

from pydantic_core import to_json

from flowkit._engine import EngineSettings, MapFailed, MapGrew, ReadArtifacts
from flowkit._records.queries import (
    artifact_meta,
    artifact_page,
    check_complete,
    has_only_a_result,
    no_artifacts_error,
    records_of,
)
from flowkit.errors import CorruptRecord, NodeFailure
from flowkit.protocols import Store, Stream
from flowkit.task import ENDED, MapStream, Mark, NodeRecord, Task

READ_AT_ONCE = 50
"""Artifacts that are read before a commit."""
READ_LATER = 500
"""Artifacts that are read at a time beside other work."""


async def new_items(
    store: Store, task: Task, effect: ReadArtifacts, settings: EngineSettings
) -> MapGrew | MapFailed | None:
    """Return the items that a map gets by new artifacts of its parent; None if nothing is new.

    A child belongs to each artifact of a batch, in the order of their positions, which never
    changes. So every coordinator numbers the children alike.

    Raises:
        StoreError: the artifacts could not be read.
    """
    index, plan = effect.index, task.spec.plan
    if task.marks[index] != Mark.MAPPING or task.record(index).attempt != effect.attempt:
        return None
    parent = plan.map_sources[index]
    record = (await records_of(store, task, [parent])).get(parent) or NodeRecord()
    state = task.maps.get(index)
    before = (None if state is None else state.stream) or MapStream(record.generation)
    ended = task.marks[parent] in ENDED
    stream = Stream(task.task_id, plan.ids[parent], record.generation)
    limit = READ_LATER if effect.later else READ_AT_ONCE
    try:
        page = await artifact_page(
            store.artifacts, stream, after=before.position, limit=limit, latest=ended
        )
        found = [artifact_meta(one) for one in page if one.partial]
        items = [to_json([meta]) for meta in found if meta is not None]
        after = MapStream(
            before.generation,
            page[-1].position if page else before.position,
            before.size + len(items),
            before.batches + len(found),
            ended and len(page) < limit,
        )
        if after.ended and task.marks[parent] == Mark.FINISHED:
            check_complete(stream, stored=record.batches, found=after.batches)
            if not after.size and has_only_a_result(record):
                instead = "map over its result"
                error = no_artifacts_error(stream.node_id, use="map over", instead=instead)
                return MapFailed(index, effect.attempt, "bad_input_args", error)
    except NodeFailure as error:
        return MapFailed(index, effect.attempt, error.reason_code, str(error))
    except CorruptRecord as error:
        return MapFailed(index, effect.attempt, "artifact_lost", str(error))
    if after.size > settings.max_map_items:
        return MapFailed(
            index,
            effect.attempt,
            "map_too_large",
            f"{plan.ids[parent]!r} has stored {after.size} artifacts, above the limit of"
            f" {settings.max_map_items} items (limits.max_map_items)",
        )
    if after == before:
        return None
    return MapGrew(index, effect.attempt, before.position, after, items, len(page) == limit)
