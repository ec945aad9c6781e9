"""Retries of maps and of their children."""

from collections.abc import Collection, Iterable

from flowkit._engine.effects import DropLetter
from flowkit._engine.map_undos import records_of_undos
from flowkit._engine.reruns import is_owed, reset_record
from flowkit._engine.transition import Transition
from flowkit.graph import Plan
from flowkit.graph._expanded_plan import is_shard, is_sharded, is_undo, node_of
from flowkit.task import MapState, Mark, Task


def chosen_nodes(plan: Plan, nodes: Iterable[int] | None) -> tuple[int, ...] | None:
    """Return the nodes of the graph that a retry chooses, with the map in place of a child."""
    if nodes is None:
        return None
    return tuple(sorted({node_of(plan, index) for index in nodes}))


def records_to_load(task: Task, nodes: Collection[int]) -> list[int]:
    """Return the nodes whose records a retry needs: the children of maps and the shards of nodes
    only if they may run again.
    """
    plan, named = task.spec.plan, set(nodes)
    found = [*range(plan.size), *records_of_undos(task)]
    for index, state in task.maps.items():
        if not is_undo(plan, index):
            is_open = is_sharded(plan, index) and task.marks[index] != Mark.FINISHED
            found += state.children() if is_open else _again(task, state, named, failed=True)
    return found


def renewed_nodes(task: Task, named: Collection[int], *, filled: Collection[int]) -> set[int]:
    """Return the nodes of which a finished shard is named. Such a node starts from nothing, because
    its shards share one stream; the ``filled`` ones keep their batches.
    """
    plan, marks = task.spec.plan, task.marks
    return {
        node_of(plan, index)
        for index in named
        if is_shard(plan, index) and marks[index] == Mark.FINISHED and index not in filled
    }


def reset_maps(
    draft: Transition,
    again: Collection[int],
    from_nothing: Collection[int],
    named: Collection[int],
    *,
    emptied: Collection[int],
    filled: Collection[int],
) -> int:
    """Reset the maps among the nodes that run ``again``, and return how many children run again.

    A map keeps its children, unless it starts from nothing: then it evaluates its items again. The
    choice of a child does not start its map from nothing, unless that is owed data of a parent, or
    is one of the ``emptied`` ones. The ``filled`` children keep their batches.

    A shard may have finished because its source failed or was stopped. If the source goes on, so
    does the shard, and keeps its batches.
    """
    task, count = draft.task, 0
    plan = task.spec.plan
    for index in again:
        state = task.maps.get(index)
        if state is None:
            continue
        has_new_input = any(edge.node in from_nothing for edge in plan.parents[index])
        is_child_named = any(node in place for place in state.places() for node in named)
        runs_for_children = (
            is_child_named and index not in named and not is_owed(task, index, again)
        )
        kept = index not in from_nothing or runs_for_children
        if has_new_input or index in emptied or not kept:
            drop_map(draft, index)
        else:
            sources = plan.sources[index] if is_sharded(plan, index) else ()
            reads_more = any(source in again for source in sources)
            count += _reset_children(draft, index, state, named, filled, reads_more=reads_more)
    return count


def drop_map(draft: Transition, index: int) -> None:
    """Drop the children of a map that begins again with new ones, and their dead letters."""
    draft.dropped_maps.append(index)
    for place in draft.task.maps[index].places():
        failed = draft.task.marks.find(Mark.FAILED, place.start, place.stop)
        while failed >= 0:
            if letter := draft.task.record(failed).letter:
                draft.letters.append(DropLetter(failed, letter))
            failed = draft.task.marks.find(Mark.FAILED, failed + 1, place.stop)


def _reset_children(
    draft: Transition,
    index: int,
    state: MapState,
    named: Collection[int],
    filled: Collection[int],
    *,
    reads_more: bool,
) -> int:
    """Reset the children of a map that run again, and return their number: of a node with shards
    that ``reads_more``, all of them. A map that reads artifacts looks for more of them again.
    """
    task = draft.task
    spec = task.spec.plan.nodes[index].map
    failed = spec is None or spec.on_item_failure == "fail"
    children = [*state.children()] if reads_more else _again(task, state, named, failed=failed)
    edited = draft.edit_map(index)
    edited.waiting = edited.open = len(children)
    if state.stream is not None:
        edited.stream = state.stream._replace(ended=False)
    fresh = {one for one in children if one in named and task.marks[one] == Mark.FINISHED}
    fresh -= {*filled}
    if fresh:
        owner = draft.edit(index)
        if owner.generation == task.records[index].generation:
            owner.generation += 1
    generation = draft.record(index).generation
    for child in children:
        record = task.records.get(child)
        if record is not None:
            record = draft.records[child] = reset_record(
                record, from_nothing=child in fresh, required=False
            )
            if child in fresh:
                record.generation = generation
            draft.note(child, "status", "queued", {"retry": True})
        draft.marks[child] = Mark.WAITING
    return len(children)


def _again(task: Task, state: MapState, named: Collection[int], *, failed: bool) -> list[int]:
    """Return the children that run again: the named ones, those that were stopped, and the
    ``failed`` ones.
    """
    kept = {Mark.FINISHED} if failed else {Mark.FINISHED, Mark.FAILED}
    marks = task.marks
    return [child for child in state.children() if marks[child] not in kept or child in named]
