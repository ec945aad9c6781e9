"""Starts of nodes: which ones may start, and in which order."""

from tests.engine.reference import child_tasks
from tests.engine.reference.consequences import follow
from tests.engine.reference.fan_in import has_input
from tests.engine.reference.maps import begin_map, children_that_may_start
from tests.engine.reference.state import IN_FLIGHT, Node, State
from tests.engine.reference.waits import begin_controls


def issue(state: State) -> None:
    """Start the nodes that may start, the most urgent first, while there is room."""
    while not state.stopping() and not state.paused:
        node = _next(state)
        if node is None:
            return
        _start(state, node)
        follow(state)
        begin_controls(state)


def _next(state: State) -> Node | None:
    """Return the next node to start. A map begins without a place."""
    flying = [node for node in state.everyone() if node.state in IN_FLIGHT]
    own = state.plan.max_parallel
    limit = min(own or state.settings.max_in_flight, state.settings.max_in_flight)
    if state.phase == "undo":
        limit = 0 if any(node.state == "deferred" for node in state.nodes) else 1
    free = [
        node
        for node in _waiting(state)
        if own is None or len(flying) + 1 < limit or has_input(state, node)
    ]
    if not free or len(flying) >= limit:
        return None
    if state.phase == "undo":
        undone = state.undone()
        return max(free, key=lambda node: state.finishes.index(undone[node.index]))
    return free[0]


def _waiting(state: State) -> list[Node]:
    """Return the nodes that wait for a place, the most urgent first. Children have the priority
    and the place of their map.
    """
    waiting: list[Node] = []
    for node in sorted(state.nodes, key=lambda node: (-state.spec(node).priority, node.index)):
        if node.state == "ready" and not state.is_control(node):
            waiting.append(node)
        if state.is_map(node):
            waiting += children_that_may_start(state, node)
    return waiting


def _start(state: State, node: Node) -> None:
    if child_tasks.is_between_rounds(node):
        child_tasks.go_on(state, node)
        return
    spec = state.spec(node)
    node.made += 1
    node.issued_at = state.now
    node.first_issued_at = state.now if node.first_issued_at is None else node.first_issued_at
    node.heard_at, node.worker, node.sent, node.place = None, None, False, None
    node.state = "issued"
    if state.is_map(node):
        begin_map(state, node)
    elif state.runs_child_task(node):
        child_tasks.begin_attempt(state, node)
        node.state = "running"
    elif spec.type == "coordinator_fn":
        node.state = "running"
    if node.state != "issued":
        node.began_at = state.now
        state.begun = True
    state.unnamed.append(node)
