"""Nodes that run child tasks: sub-flows, and loops, which run one after the other."""

from flowkit._engine import ChildFailed, ChildFinished, RoundChecked
from flowkit.task import ParentNode
from tests.engine.reference.ends import attempt_failed, end_stopped, finish
from tests.engine.reference.state import Node, State

ChildEvent = ChildFinished | ChildFailed | RoundChecked


def is_followed(state: State, node: Node) -> bool:
    """Return whether a child task follows a node: it runs, or waits for the end of its child."""
    return state.runs_child_task(node) and node.state in ("running", "cancelling")


def follow_again(state: State) -> None:
    """A pause, a resume, or a forced cancel goes down to all child tasks."""
    state.followed.update(node for node in state.everyone() if is_followed(state, node))


def begin_attempt(state: State, node: Node) -> None:
    """Start an attempt, which goes on in the child task of the one before."""
    node.overdue = False
    node.round_begun = node.round_begun or not _is_checked_first(state, node)
    state.followed.add(node)


def child_created(state: State, node: Node, stored: ParentNode) -> None:
    if _is_current(state, node, stored):
        node.created = True


def child_reported(state: State, node: Node, event: ChildEvent) -> None:
    if not _is_current(state, node, event):
        return
    match event:
        case RoundChecked():
            if node.state == "running" and not node.round_begun and not node.overdue:
                _round_checked(state, node, goes_on=event.goes_on)
        case ChildFinished():
            if node.resolution is not None:
                end_stopped(state, node)
            elif event.following is None:
                finish(state, node, event.result)
            else:
                _round_ended(state, node, event)
        case ChildFailed():
            if event.missing:
                # It was refused: the next attempt creates one.
                node.created = node.round_begun = False
            if node.overdue:
                attempt_failed(state, node, "start_to_close_timeout")
            else:
                attempt_failed(state, node, event.reason_code, permanent=event.permanent)


def _is_current(state: State, node: Node, event: ChildEvent | ParentNode) -> bool:
    """Return whether an event is about the current attempt and round of a node."""
    current = node.round if state.spec(node).type == "loop" else None
    same = event.attempt == node.number[0] and event.iteration == current
    return same and is_followed(state, node)


def _is_checked_first(state: State, node: Node) -> bool:
    """Return whether a node has a condition that is checked before each round."""
    return "while" in state.io(node)


# ---------------------------------------------------------------- rounds


def _round_checked(state: State, node: Node, *, goes_on: bool) -> None:
    if goes_on:
        node.round_begun = True
        state.followed.add(node)
    else:
        finish(state, node, node.previous)


def _round_ended(state: State, node: Node, event: ChildFinished) -> None:
    """Begin the next round, which the condition asks for, unless something is against it."""
    following = event.following
    assert following is not None
    if node.state == "cancelling":
        end_stopped(state, node)
    elif node.overdue:
        attempt_failed(state, node, "start_to_close_timeout")
    elif node.round + 1 >= following.max_iterations:
        attempt_failed(state, node, "loop_limit", permanent=True)
    else:
        node.round, node.previous = node.round + 1, event.result
        node.created = node.round_begun = False
        if following.delay_sec:
            node.state, node.until = "deferred", state.now + following.delay_sec
        elif not state.paused:
            node.round_begun = True
            state.followed.add(node)


def is_between_rounds(node: Node) -> bool:
    """Return whether a loop pauses, or waits for a place after its pause."""
    return node.until is not None and node.state in ("deferred", "ready")


def pause_ended(node: Node) -> None:
    """Let a loop wait for a place for its next round."""
    node.state = "ready"


def go_on(state: State, node: Node) -> None:
    """Go on with a loop after its pause. A condition before the round is checked again."""
    node.state, node.until = "running", None
    node.round_begun = not _is_checked_first(state, node)
    state.followed.add(node)


def resumed(state: State) -> None:
    """Begin the rounds that a pause of the task held back. A condition is checked again."""
    for node in state.nodes:
        if state.spec(node).type == "loop" and node.state == "running":
            node.round_begun = node.round_begun or not _is_checked_first(state, node)


def wait_on(state: State, node: Node) -> None:
    """End the pause between two rounds, if it is over or the attempt took too long."""
    limit = state.spec(node).timeouts.start_to_close_sec
    assert node.until is not None
    if limit is not None and node.issued_at + limit < node.until:
        if state.now >= node.issued_at + limit:
            attempt_failed(state, node, "start_to_close_timeout")
    elif state.now >= node.until:
        pause_ended(node)


def check_time(state: State, node: Node) -> None:
    """Have the child task of an overdue attempt stopped. The attempt fails when it has ended."""
    limit = state.spec(node).timeouts.start_to_close_sec
    late = limit is not None and state.now - node.issued_at >= limit
    node.overdue = node.overdue or (late and node.state == "running")
