"""Ends of nodes: finished, failed, and stopped."""

from typing import Any

from flowkit.task import TaskStatus
from tests.engine.reference.state import ENDED, Node, State


def finish(state: State, node: Node, result: Any = None) -> None:
    node.end("finished")
    node.result = result
    if node.item is None:
        state.finishes.append(node.index)


def fail(state: State, node: Node, reason: str) -> None:
    """Fail a node for good. A child has its map fail, unless that continues."""
    node.end("failed")
    node.reason = reason
    of = state.spec(node).map
    if node.item is not None and of is not None and of.on_item_failure == "fail":
        fail_map(state, state.nodes[node.index], "map_item_failed")


def fail_map(state: State, node: Node, reason: str) -> None:
    """Stop the children of a map, which fails when they have ended. The first reason counts."""
    if node.state == "mapping" and node.failing is None:
        node.failing = reason
        stop_children(state, node)


def attempt_failed(state: State, node: Node, reason: str, *, permanent: bool = False) -> None:
    """Try again later, if the policy allows. The policy of a map is that of each child."""
    policy = state.spec(node).retry_policy
    if node.state == "cancelling":
        end_stopped(state, node)
        return
    delay = min(
        policy.backoff_sec * policy.multiplier ** (node.made - 1), policy.longest_backoff_sec
    )
    spent = state.now - (node.first_issued_at or state.now)
    over_budget = policy.budget_sec is not None and spent + delay > policy.budget_sec
    if permanent or reason in policy.permanent_on or node.made > policy.max or over_budget:
        fail(state, node, reason)
    else:
        node.until = node.signal = None
        node.state, node.retry_at = "deferred", state.now + delay


def stop_everything(state: State, outcome: TaskStatus) -> None:
    state.outcome = outcome
    state.paused = False
    for node in state.nodes:
        if node.state not in (*ENDED, "cancelling", "closing", "held"):
            stop(state, node)


def stop(state: State, node: Node) -> None:
    if node.state == "mapping":
        stop_children(state, node)
        if any(child.state not in ENDED for child in node.children or ()):
            node.state = "closing"
        else:
            end_stopped(state, node)
    elif node.state == "running" or (node.state == "issued" and ends_before_others(state, node)):
        node.state, node.cancel_by = "cancelling", state.now + state.settings.cancel_grace_sec
        if state.runs_child_task(node):
            state.followed.add(node)
    else:
        end_stopped(state, node)


def ends_before_others(state: State, node: Node) -> bool:
    """Return whether nodes that start after the stop of a node must not run beside it."""
    return node.resolution is not None or bool(state.later_nodes())


def stop_children(state: State, node: Node) -> None:
    for child in node.children or ():
        if child.state not in (*ENDED, "cancelling"):
            stop(state, child)


def end_stopped(state: State, node: Node) -> None:
    """End a node that was stopped: as an operator resolved it, if one did."""
    if node.resolution is None:
        node.end("skipped" if node.owed_nothing else "cancelled")
    elif node.resolution.outcome == "finished":
        if node.first_issued_at is None:
            node.first_issued_at = state.now
        finish(state, node, node.resolution.result)
    elif node.resolution.outcome == "failed":
        fail(state, node, "resolved")
    else:
        node.end("skipped")
