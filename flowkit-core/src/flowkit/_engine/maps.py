"""Maps: from the evaluation of their items to the results of their children. The shards of a node
run like the children of a map; then the node has an attempt of its own, for its end.
"""

from flowkit._engine.effects import CollectMap, OpenMap, ReadArtifacts
from flowkit._engine.events import (
    ChildrenDue,
    MapCollected,
    MapEvent,
    MapFailed,
    MapGrew,
    MapOpened,
    ShardsCollected,
)
from flowkit._engine.map_expansion import Growth
from flowkit._engine.node_ends import end_cancelled, fail_node, finish_node, stop_children
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.graph._expanded_plan import is_undo
from flowkit.task import MapBlock, MapStream, Mark


def begin_map(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Begin a map or a node with shards. Its items are evaluated next; children that it has from an
    earlier run start then.
    """
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    record.issued_at = record.started_at = record.heard_at = draft.now
    record.first_issued_at = record.first_issued_at or draft.now
    record.finished_at = record.reason_code = record.error = None
    draft.started_at = draft.started_at or draft.now
    draft.move(index, Mark.MAPPING)
    reads = index in draft.task.spec.plan.map_sources
    if reads:
        draft.effects.append(ReadArtifacts(index, record.attempt))
    if not reads or index in draft.task.maps:
        draft.effects.append(OpenMap(index, record.attempt))
    draft.schedule(index, draft.now + settings.resend_sec)


def map_opened(draft: Transition, event: MapOpened, settings: EngineSettings) -> None:
    """Add the children of a map to the task. They start with the next event."""
    if not _is_of_run(draft, event) or event.index in draft.task.maps:
        draft.ignored = True
        return
    if not event.size:
        _finish(draft, event.index, [], settings)
        return
    block = MapBlock(event.index, len(draft.task.marks), event.size, event.items_a_part, event.tag)
    draft.opened = block, event.parts
    draft.open += event.size
    draft.note(event.index, "children", None, {"number": event.size, "added": event.size})
    draft.effects.append(OpenMap(event.index, event.attempt))


def map_grew(draft: Transition, event: MapGrew, settings: EngineSettings) -> None:
    """Add children for new artifacts. They start with the next event. The map ends with the last
    child after its parent has ended and all artifacts were read.
    """
    index = event.index
    state = draft.task.maps.get(index)
    known = MapStream(event.stream.generation) if state is None else state.stream
    if not _is_of_run(draft, event) or draft.record(index).reason_code is not None:
        draft.ignored = True
        return
    expected = (event.stream.generation, event.after)
    if known is None or known.ended or (known.generation, known.position) != expected:
        draft.ignored = True
        if known is not None and not known.ended:
            draft.effects.append(ReadArtifacts(index, event.attempt))
        return
    draft.edit(index).heard_at = draft.now
    stream = event.stream
    if stream.ended and not stream.size:
        _finish(draft, index, [], settings)
        return
    draft.growths.append(Growth(index, stream, event.items))
    if added := len(event.items):
        draft.open += added
        draft.note(index, "children", None, {"number": stream.size, "added": added})
        draft.effects.append(OpenMap(index, event.attempt))
    elif stream.ended and not draft.edit_map(index).open:
        _collect(draft, index, settings)
    if event.more:
        draft.effects.append(ReadArtifacts(index, event.attempt, later=True))


def map_failed(draft: Transition, event: MapFailed, settings: EngineSettings) -> None:
    """Fail a map whose items or results are not usable, when its children have ended. One that
    fails already keeps its reason.
    """
    if not _is_of_run(draft, event) or draft.record(event.index).reason_code is not None:
        draft.ignored = True
        return
    record = draft.edit(event.index)
    record.reason_code, record.error = event.reason_code, event.error
    if not stop_children(draft, event.index, event.reason_code, settings):
        fail_node(draft, event.index, settings)


def children_due(draft: Transition, event: ChildrenDue, settings: EngineSettings) -> None:
    """Queue a map whose children may start."""
    if not _is_of_run(draft, event) or event.index not in draft.task.maps:
        draft.ignored = True
        return
    draft.queue_map(event.index)
    state = draft.edit_map(event.index)
    if not state.open and not state.may_grow:
        _collect(draft, event.index, settings)


def map_collected(draft: Transition, event: MapCollected, settings: EngineSettings) -> None:
    """Finish a map with the results of its children."""
    if not _is_of_run(draft, event) or draft.edit_map(event.index).open:
        draft.ignored = True
        return
    _finish(draft, event.index, list(event.result), settings)


def shards_collected(draft: Transition, event: ShardsCollected, settings: EngineSettings) -> None:
    """Queue a node whose shards have ended for its end, which has attempts of its own. The first
    one has the number of the highest attempt of a shard.
    """
    if not _is_of_run(draft, event) or draft.edit_map(event.index).open:
        draft.ignored = True
        return
    record = draft.edit(event.index)
    record.sharded_since = record.started_at
    record.first_attempt = record.attempt
    record.attempt -= 1
    record.metrics = event.metrics or None
    record.batches, record.skipped = event.batches, event.skipped
    draft.move(event.index, Mark.READY)
    draft.queue(event.index)


def close_maps(draft: Transition, settings: EngineSettings) -> None:
    """End the maps whose last child has ended, or have the results of their children collected. The
    undo of a map has no result.
    """
    for index, state in list(draft.maps.items()):
        before = draft.task.maps.get(index)
        if state.open or before is None or not before.open:
            continue
        mark = draft.mark(index)
        if mark == Mark.CLOSING:
            end_cancelled(draft, index, settings)
        elif mark == Mark.MAPPING and is_undo(draft.task.spec.plan, index):
            finish_node(draft, index, settings)
        elif mark == Mark.MAPPING and draft.record(index).reason_code is not None:
            fail_node(draft, index, settings)
        elif mark == Mark.MAPPING and not state.may_grow:
            _collect(draft, index, settings)


def _collect(draft: Transition, index: int, settings: EngineSettings) -> None:
    draft.effects.append(CollectMap(index, draft.record(index).attempt))
    draft.schedule(index, draft.now + settings.resend_sec)


def _finish(draft: Transition, index: int, result: list[object], settings: EngineSettings) -> None:
    draft.edit(index).result = result
    finish_node(draft, index, settings)


def _is_of_run(draft: Transition, event: MapEvent) -> bool:
    """Return whether an event is about the current run of a map in a state for such an event."""
    return (
        draft.mark(event.index) in NODE_REPORTS[type(event)]
        and draft.record(event.index).attempt == event.attempt
    )
