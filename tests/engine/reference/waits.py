"""Nodes that wait: sleeps, signals and approvals."""

from math import inf
from typing import Any

from flowkit._engine import ArgumentsEvaluated, DecisionMade, SignalReceived
from tests.engine.reference.consequences import follow, unneeded
from tests.engine.reference.ends import attempt_failed, fail, finish, stop
from tests.engine.reference.state import Node, State

ARGUMENTS: dict[str, tuple[str, type]] = {
    "sleep": ("for_sec", int),
    "wait_signal": ("signal", str),
    "approval": ("prompt", str),
}
"""The argument of each control type that may be an expression, and the type of its value."""


def waits(state: State, node: Node) -> bool:
    """Return whether a control node has begun and is not between two attempts."""
    return state.is_control(node) and node.state == "deferred" and node.retry_at == 0


def begin_controls(state: State) -> None:
    while not state.stopping() and not state.paused:
        ready = [n for n in state.nodes if state.is_control(n) and n.state == "ready"]
        if not ready:
            return
        node = ready[0]
        node.made += 1
        node.attempt += 1
        node.state, node.issued_at, node.until, node.retry_at = "deferred", state.now, None, 0
        node.signal = None
        if node.first_issued_at is None:
            node.first_issued_at = state.now
        state.begun = True
        if "${" not in str(state.io(node)):
            _wait(state, node, {})
        for parent in unneeded(state, node):
            stop(state, parent)
        follow(state)


def arguments_evaluated(state: State, node: Node, event: ArgumentsEvaluated) -> None:
    begun = waits(state, node) and node.until is None
    if begun and event.attempt == node.attempt and event.error is not None:
        fail(state, node, "bad_expression")
    elif begun and event.attempt == node.attempt:
        _wait(state, node, event.values)


def _wait(state: State, node: Node, values: Any) -> None:
    """Start a wait, given the values of its expressions."""
    given = {**state.io(node), **values}
    argument, kind = ARGUMENTS[state.spec(node).type]
    if not isinstance(given[argument], kind):
        fail(state, node, "bad_input")
        return
    seconds = given[argument] if kind is int else given.get("timeout_sec")
    node.until = inf if seconds is None else node.issued_at + seconds
    if argument == "signal":
        node.signal = given["signal"]
        _take_a_kept_signal(state, node)
    elif kind is int and state.now >= node.until:
        finish(state, node)


def decided(state: State, node: Node, event: DecisionMade) -> None:
    waiting = waits(state, node) and node.until is not None
    if not waiting or event.attempt != node.attempt or state.spec(node).type != "approval":
        return
    if event.choice == "reject" and state.io(node)["on_reject"] == "fail":
        fail(state, node, "rejected")
    else:
        finish(state, node, event.choice)


# ---------------------------------------------------------------- signals


def signalled(state: State, signal: SignalReceived) -> None:
    """Give a signal to the node that has waited for it the longest, or keep it."""
    if signal.signal_id in state.signal_ids:
        return
    state.signal_ids.add(signal.signal_id)
    waiting = [
        (node.issued_at, node.index)
        for node in state.nodes
        if waits(state, node) and _may_take(node, signal)
    ]
    if waiting:
        finish(state, state.nodes[min(waiting)[1]], signal.payload)
    else:
        state.kept.append(signal)


def _may_take(node: Node, signal: SignalReceived) -> bool:
    allowed = signal.nodes is None or node.index in signal.nodes
    return allowed and node.signal == signal.name


def _take_a_kept_signal(state: State, node: Node) -> None:
    for signal in state.kept:
        if _may_take(node, signal):
            state.kept.remove(signal)
            finish(state, node, signal.payload)
            return


# ---------------------------------------------------------------- time


def wait_on(state: State, node: Node) -> None:
    """End a wait that is over. If several times have passed, the earliest decides."""
    limit = state.spec(node).timeouts.start_to_close_sec
    ends = [(node.until, "time")] if node.until is not None else []
    ends += [(node.issued_at + limit, "too long")] if limit is not None else []
    due = [end for end in ends if state.now >= end[0]]
    if due and min(due, key=lambda end: end[0])[1] == "time":
        _out_of_time(state, node)
    elif due:
        attempt_failed(state, node, "start_to_close_timeout")


def _out_of_time(state: State, node: Node) -> None:
    """End a wait for which nothing came in time; a sleep finishes."""
    kind = state.spec(node).type
    if kind == "sleep":
        finish(state, node)
    elif state.io(node).get("on_timeout") == "skip":
        node.end("skipped")
    else:
        fail(state, node, "signal_timeout" if kind == "wait_signal" else "approval_timeout")
