"""Undos of the children of maps: which children are undone, and in which order.

The undo of a map is a map itself. Its children are the undos of the children of the map that had
finished. The order of their ends is in the history of the task, so the main phase stores nothing
for it. It is read from there, the last ends first and some at a time, when the undos of all nodes
that ended later have ended.
"""

import re
from collections.abc import Iterator, Mapping

from flowkit._engine.effects import ReadEnds
from flowkit._engine.events import EndsRead
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit.task import MapBlock, MapState, Mark, Task


def begin_undo_of_map(draft: Transition, index: int) -> bool:
    """Add the undos of the finished children of a map to the task. Return False if there are none.

    The undo of the map is waiting, and is queued as if its last child had ended just now.
    """
    task, ends = draft.task, draft.task.spec.plan.ends
    assert ends is not None
    undone = task.maps.get(ends.undone_by[index])
    if undone is None or not (finished := _finished(draft, undone)):
        return False
    start_undo_of_map(draft, index)
    draft.edit(index).after = task.seq + len(draft.log)
    first = len(task.marks) + sum(block.size for block in draft.undo_blocks)
    block = MapBlock(index, first, undone.size, 1, "")
    draft.undo_blocks.append(block)
    draft.maps[index] = MapState((block,), waiting=finished, open=finished)
    draft.open += finished
    draft.note(index, "children", None, {"number": finished, "added": finished})
    draft.queue_map(index)
    return True


def start_undo_of_map(draft: Transition, index: int) -> None:
    """Let the undo of a map, which waits, run until the undos of its children have ended."""
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    record.issued_at = record.first_issued_at = record.started_at = draft.now
    draft.move(index, Mark.READY)
    draft.move(index, Mark.MAPPING)


def _finished(draft: Transition, state: MapState) -> int:
    """Return how many children of a map have finished."""
    marks = draft.task.marks
    places = state.places()
    count = sum(marks.count(Mark.FINISHED, place.start, place.stop) for place in places)
    for child, mark in draft.marks.items():
        if any(child in place for place in places):
            count += (mark == Mark.FINISHED) - (marks[child] == Mark.FINISHED)
    return count


def read_ends(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Have the ends of the next children of a map read."""
    record = draft.record(index)
    draft.effects.append(ReadEnds(index, record.attempt, record.after))
    draft.schedule(index, draft.now + settings.resend_sec)


def ends_read(draft: Transition, event: EndsRead, settings: EngineSettings) -> None:
    """Queue the undos of the children of a map that ended last among those that are not queued."""
    index = event.index
    record = draft.record(index)
    if (
        draft.mark(index) not in NODE_REPORTS[EndsRead]
        or record.attempt != event.attempt
        or record.after != event.before
    ):
        draft.ignored = True
        return
    draft.edit(index).after = event.after
    first = draft.edit_map(index).blocks[0].first
    for number, seq in event.children:
        undo = first + number
        if draft.mark(undo) == Mark.WAITING and number in event.cached:
            draft.move(undo, Mark.SKIPPED, data={"reason_code": "nothing_to_undo"})
        elif draft.mark(undo) == Mark.WAITING:
            child = draft.edit(undo)
            child.after, child.generation = seq, record.generation
            draft.move(undo, Mark.READY)
            draft.queue(undo)


def undone_children(task: Task) -> dict[int, set[int]]:
    """Return the children whose undo has begun in an ended task, by their map."""
    found: dict[int, set[int]] = {}
    for undone, undos in _undos_of_maps(task):
        children = list(task.maps[undone].children())
        begun = {children[undo - undos.first] for undo in _begun(task, undos)}
        if begun:
            found[undone] = begun
    return found


def emptied_maps(task: Task, undone: Mapping[int, set[int]]) -> set[int]:
    """Return the maps that keep no child: all that had finished are undone."""
    return {
        index
        for index, children in undone.items()
        if len(children)
        == sum(
            task.marks.count(Mark.FINISHED, place.start, place.stop)
            for place in task.maps[index].places()
        )
    }


def records_of_undos(task: Task) -> Iterator[int]:
    """Yield the undos of children whose records a retry needs, and the children that may run again
    because of them. All children of a map without a cancelled undo are new.
    """
    for undone, undos in _undos_of_maps(task):
        cancelled = task.marks.find(Mark.CANCELLED, undos.first, undos.end) >= 0
        children = list(task.maps[undone].children()) if cancelled else []
        for found in _ENDED.finditer(task.marks, undos.first, undos.end):
            if task.marks[found.start()] != Mark.FINISHED:
                yield found.start()
            if cancelled:
                yield children[found.start() - undos.first]


def _undos_of_maps(task: Task) -> Iterator[tuple[int, MapBlock]]:
    """Yield the maps whose children are undone, each with the places of these undos."""
    ends = task.spec.plan.ends
    for index, state in task.maps.items():
        if ends is not None and index in ends.undone_by:
            yield ends.undone_by[index], state.blocks[0]


def _begun(task: Task, undos: MapBlock) -> Iterator[int]:
    """Yield the undos of children that have begun, of an ended task."""
    for found in _ENDED.finditer(task.marks, undos.first, undos.end):
        undo = found.start()
        if task.marks[undo] != Mark.CANCELLED or task.record(undo).first_issued_at:
            yield undo


_ENDED = re.compile(b"[%b]" % bytes((Mark.FINISHED, Mark.FAILED, Mark.CANCELLED)))
