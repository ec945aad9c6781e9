"""Maps: a child for each item, and a result when all children have ended."""

from typing import Any

from flowkit._engine import MapCollected, MapFailed, MapGrew, MapOpened
from tests.engine.reference.ends import end_stopped, fail, fail_map, finish
from tests.engine.reference.state import ENDED, IN_FLIGHT, Node, State

MapReport = MapOpened | MapGrew | MapFailed | MapCollected


def reads_artifacts(state: State, node: Node) -> bool:
    return node.index in state.plan.map_sources


def begin_map(state: State, node: Node) -> None:
    """Begin a map. Children that it kept from an earlier run wait for places when all else that
    follows from the event is done, as the children of a list do that is evaluated then.
    """
    node.state = "mapping"
    state.just_begun.add(node)
    if reads_artifacts(state, node) and node.children is None:
        node.children = []


def need(state: State, node: Node) -> str | None:
    """Return what a map needs: its items, further artifacts, or the results of its children."""
    if node.state != "mapping" or node.failing is not None:
        return None
    if reads_artifacts(state, node) and not node.read_all:
        return "read"
    if node.children is None:
        return "open"
    return "collect" if all(child.state in ENDED for child in node.children) else None


def map_reported(state: State, node: Node, event: MapReport) -> None:
    if node.state != "mapping" or event.attempt != node.number[0]:
        return
    match event:
        case MapFailed():
            fail_map(state, node, event.reason_code)
        case MapOpened() if node.children is None:
            node.children = []
            _add_children(state, node, event.size)
            if not event.size:
                finish(state, node, [])
        case MapGrew() if need(state, node) == "read" and event.after == node.read:
            node.read, node.read_all = event.stream.position, event.stream.ended
            _add_children(state, node, len(event.items))
            if node.read_all and not node.children:
                finish(state, node, [])
        case MapCollected() if need(state, node) == "collect":
            finish(state, node, list(event.result))


def _add_children(state: State, node: Node, size: int) -> None:
    children = node.children
    assert children is not None
    if size and not children:
        state.opened = [index for index in state.opened if index != node.index] + [node.index]
    for item in range(len(children), len(children) + size):
        children.append(Node(node.index, item, life=state.new_life()))


def results(node: Node) -> list[Any]:
    """Return the results of the children in the order of the items, null for failed ones."""
    return [child.result if child.state == "finished" else None for child in node.children or ()]


def children_that_may_start(state: State, node: Node) -> list[Node]:
    """Return the children of a map that may start, first those that have begun before."""
    children, of = node.children or [], state.spec(node).map
    assert of is not None
    flying = [child for child in children if child.state in IN_FLIGHT]
    full = len(flying) == of.max_parallel
    if node.state != "mapping" or node in state.just_begun or full:
        return []
    ready = [child for child in children if child.state == "ready"]
    return ready + [child for child in children if child.state == "waiting"]


def close_a_map(state: State) -> bool:
    """End a map that fails or was stopped, when its last child has ended: of several, the one that
    got its children first.
    """
    for index in [*state.opened, *range(len(state.nodes))]:
        node = state.nodes[index]
        closes = node.state == "closing" or (node.state == "mapping" and node.failing is not None)
        if not closes or any(child.state not in ENDED for child in node.children or ()):
            continue
        if node.state == "closing":
            end_stopped(state, node)
        else:
            fail(state, node, node.failing or "")
        return True
    return False
