"""Decisions of operators about nodes: the end of a pause, and the outcome of a node."""

from flowkit._engine import NodeResolved, RunNowRequested
from tests.engine.reference import child_tasks, waits
from tests.engine.reference.ends import finish, stop
from tests.engine.reference.state import ENDED, Node, State


def run_now(state: State, node: Node, event: RunNowRequested) -> None:
    """End the pause that the request is about as if its time had come."""
    if event.until != pause_end(state, node):
        return
    if waits.waits(state, node):
        finish(state, node)
    else:
        node.state = "ready"


def pause_end(state: State, node: Node) -> float | None:
    """Return when the pause of a node ends: before an attempt, before a round, or of a sleep."""
    if node.state != "deferred":
        return None
    if child_tasks.is_between_rounds(node) and state.runs_child_task(node):
        return node.until
    if waits.waits(state, node):
        return node.until if state.spec(node).type == "sleep" else None
    return node.retry_at


def resolved(state: State, node: Node, event: NodeResolved) -> None:
    """Stop a node, which then ends with this outcome. The first resolution counts."""
    if node.state not in (*ENDED, "cancelling", "closing", "held"):
        node.resolution = event.resolution
        stop(state, node)
