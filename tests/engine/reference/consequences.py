"""Consequences of the ends of nodes for the nodes around them."""

from flowkit.task import TaskStatus
from tests.engine.reference.ends import stop, stop_everything
from tests.engine.reference.fan_in import failed_for_good, met, said, streams
from tests.engine.reference.state import ENDED, IN_FLIGHT, UNBEGUN, Node, State


def follow(state: State) -> None:
    """Apply all consequences of the nodes' states until none is left."""
    while not state.stopping() and _follow_once(state):
        pass


def _follow_once(state: State) -> bool:
    failed = any(failed_for_good(state, node) and not node.excused for node in state.nodes)
    if failed and state.plan.on_node_failure == "stop" and state.phase == "main":
        stop_everything(state, TaskStatus.FAILED)
        return True
    for node in state.nodes:
        if node.state in (*ENDED, "held"):
            continue
        holds, parents = met(state, node), state.plan.parents[node.index]
        if holds is None and node.state in UNBEGUN and not node.made:
            node.end("skipped")
            node.starved = any(said(state, edge) == "bad" for edge in parents)
            return True
        if holds is None and node.state not in ("cancelling", "closing"):
            node.owed_nothing = all(said(state, edge) != "bad" for edge in parents)
            stop(state, node)
            return True
        if node.state == "waiting" and (holds or streams(state, node)):
            node.state = "checking" if state.spec(node).when is not None else "ready"
            return True
    return _stop_what_is_not_needed(state)


def _stop_what_is_not_needed(state: State) -> bool:
    begun = [node for node in state.nodes if node.state in (*IN_FLIGHT, "mapping", "closing")]
    not_needed = [parent for node in begun for parent in unneeded(state, node)]
    for node in not_needed:
        stop(state, node)
    return bool(not_needed)


def unneeded(state: State, node: Node) -> list[Node]:
    """Return the parents that a node which has started stops."""
    if state.spec(node).on_satisfied != "cancel" or not met(state, node):
        return []
    parents = [state.nodes[edge.node] for edge in state.plan.parents[node.index]]
    return [
        parent
        for parent in parents
        if parent.state not in (*ENDED, "cancelling", "closing") and not parent.required
    ]
