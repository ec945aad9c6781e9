"""Retries: which nodes run again, and what they keep."""

from collections.abc import Collection

from flowkit.graph import Edge, Route
from flowkit.task import TaskStatus
from tests.engine.reference.fan_in import failed_for_good, said
from tests.engine.reference.state import Node, State
from tests.engine.reference.timers import set_deadline


def retry(state: State, named: list[Node] | None, *, fill: bool) -> None:
    """Run an ended task again. The ``named`` nodes may be children of maps."""
    if named and all(node.index in state.later_nodes() for node in named):
        _retry_later(state, named)
        return
    main = [index for index in range(len(state.nodes)) if index not in state.later_nodes()]
    chosen = None if named is None else {node.index for node in named}
    again = _run_again(state, chosen)
    kept = {*(chosen or ())} - _undone(state) if fill else set()
    fresh = _from_nothing(state, again, kept=kept)
    for index in main:
        old = state.nodes[index]
        if index not in again:
            old.excused = True
            continue
        required = old.state == "finished" or index in (chosen or ())
        node = state.nodes[index] = Node(index, required=required, attempt=old.attempt)
        if index in fresh:
            node.life = state.new_life()
        else:
            _keep_child_task(node, old)
        if old.children is not None and not _has_new_items(state, old, again, fresh, named or ()):
            _keep_children(state, node, old, named or (), fill=fill)
    state.finishes = [index for index in state.finishes if index not in again]
    hold(state, state.later_nodes())
    if again or state.outcome is not TaskStatus.FINISHED:
        state.outcome, state.delayed_at, state.ended_by = None, None, None
    state.phase, state.status = "main", TaskStatus.QUEUED
    state.begun = state.begun and not again
    set_deadline(state)


def _retry_later(state: State, named: list[Node]) -> None:
    """Run undos again, then ``finally``. The nodes of the main phase stay as they are."""
    hold(state, state.later["finally"])
    state.phase, state.status = "main", TaskStatus.QUEUED
    for index in {node.index for node in named} & {*state.later["undo"]}:
        if state.nodes[index].first_issued_at is None:
            continue
        state.nodes[index] = Node(index, state="ready", life=state.new_life())
        state.phase = "undo"


def hold(state: State, later: list[int]) -> None:
    for index in later:
        attempt = state.nodes[index].attempt
        state.nodes[index] = Node(index, state="held", attempt=attempt, life=state.new_life())


# ---------------------------------------------------------------- which nodes


def _run_again(state: State, chosen: Collection[int] | None) -> set[int]:
    """Return the nodes of the main phase that run again."""
    again: set[int] = set()
    later = state.later_nodes()
    chosen_here = {*(chosen or ()), *_undone(state)} - set(later)
    if state.ended_by is not None and state.outcome is not TaskStatus.FINISHED:
        chosen_here.add(state.ended_by)
    all_stopped = state.outcome is not TaskStatus.FINISHED

    def run_again(index: int, *, with_all_below: bool) -> None:
        again.add(index)
        for edge in state.plan.children[index]:
            if with_all_below or state.nodes[edge.node].state != "finished":
                run_again(edge.node, with_all_below=with_all_below)
            elif _missed_something(state, edge):
                # It had finished, and its result is replaced, and so are all results computed
                # from it.
                run_again(edge.node, with_all_below=True)

    main = [node for node in state.nodes if node.index not in later]
    for node in main:
        if node.index in chosen_here:
            run_again(node.index, with_all_below=True)
        elif (node.state == "cancelled" and all_stopped) or (
            chosen is None and failed_for_good(state, node)
        ):
            run_again(node.index, with_all_below=False)
    while needed := [
        node.index
        for node in main
        if node.state == "cancelled" and _is_missed(state, node.index, again)
    ]:
        for index in needed:
            run_again(index, with_all_below=False)
    return again


def _undone(state: State) -> set[int]:
    """Return the nodes whose undo has begun."""
    return {
        index
        for undo, index in state.undone().items()
        if state.nodes[undo].first_issued_at is not None
    }


def _is_missed(state: State, index: int, again: set[int]) -> bool:
    """Return whether a stopped node is missed by a child that runs again.

    It is, if the child cannot start with the other data. A child that was skipped for lack of
    that data is missed in its turn.
    """
    for edge in () if state.plan.nodes[index].optional else state.plan.children[index]:
        below = state.nodes[edge.node]
        wanted = edge.node in again or (below.starved and _is_missed(state, edge.node, again))
        if index not in again and wanted and edge.route is not Route.ON_FAILURE:
            kept = [
                said(state, other)
                for other in state.plan.parents[edge.node]
                if other.node not in again
            ]
            need = state.plan.nodes[edge.node].fan_in
            if need == "ended":
                continue
            if need == "all" or kept.count("good") < (
                1 if need == "any" else int(need.split(":")[1])
            ):
                return True
    return False


def _missed_something(state: State, edge: Edge) -> bool:
    """Return whether a finished node could get more data from this parent, which runs again.

    A node that waits for all of its parents misses the data that any parent did not give. A
    node that waits for some misses nothing, unless it pulled from its parents and did not ask
    to stop the others.
    """
    child = state.plan.nodes[edge.node]
    return child.fan_in in ("all", "ended") or (
        state.nodes[edge.node].pulled and child.on_satisfied == "leave"
    )


# ---------------------------------------------------------------- what they keep


def _from_nothing(state: State, again: set[int], kept: Collection[int]) -> set[int]:
    """Return the nodes that begin from nothing: those that had finished, and all below them. What
    they produced is produced again. The ``kept`` ones go on where they were if their input stays.
    """

    def begins(index: int) -> bool:
        finished = state.nodes[index].state == "finished" and index not in kept
        parents = [edge.node for edge in state.plan.parents[index]]
        return index in again and (finished or any(map(begins, parents)))

    return {index for index in again if begins(index)}


def _keep_child_task(node: Node, old: Node) -> None:
    """Go on in the child task of the attempt before; a loop in its round."""
    node.life, node.created = old.life, old.created
    node.round, node.round_begun, node.previous = old.round, old.round_begun, old.previous


def _has_new_items(
    state: State, old: Node, again: set[int], fresh: set[int], named: Collection[Node]
) -> bool:
    """Return whether a map that runs again evaluates its items again: it begins from nothing, and
    not only because some of its children were chosen.
    """
    index = old.index
    if any(edge.node in fresh for edge in state.plan.parents[index]):
        return True
    if index not in fresh:
        return False
    others = {node.index for node in named if node.index != index or node.item is None}
    return not any(node.index == index for node in named) or index in _run_again(state, others)


def _keep_children(
    state: State, node: Node, old: Node, named: Collection[Node], *, fill: bool
) -> None:
    """Keep the children that have finished, and with ``continue`` those that failed. The others
    run again, and the named ones; these for their missing batches alone with ``fill``.
    """
    spec = state.spec(node).map
    assert spec is not None
    assert old.children is not None
    kept = ("finished",) if spec.on_item_failure == "fail" else ("finished", "failed")
    node.read = old.read
    node.children = [
        child if child.state in kept and child not in named else _again(state, child, fill=fill)
        for child in old.children
    ]


def _again(state: State, old: Node, *, fill: bool) -> Node:
    child = Node(old.index, old.item)
    if old.state == "finished" and not fill:
        child.life = state.new_life()
    else:
        _keep_child_task(child, old)
    return child
