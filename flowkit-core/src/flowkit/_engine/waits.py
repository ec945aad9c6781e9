"""Waits of control nodes. A node that waits is deferred: it takes no worker and no place among the
nodes in flight. What it waits for is in its record.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from heapq import heappop
from math import inf
from typing import Any

from flowkit._engine.events import (
    ArgumentsEvaluated,
    DecisionMade,
    EvaluateArguments,
    SignalReceived,
    lacks_arguments,
)
from flowkit._engine.node_ends import cancel_other_parents, fail_attempt, finish_node, skip
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._json.limits import LAST_MOMENT
from flowkit.graph._control_types import REJECT, arguments_of, moment_of, read_arguments
from flowkit.task import Mark, NodeRecord, Signal, SignalBox, Wait

LONGEST_PAUSE_SEC = 600.0
"""Longest pause before the arguments of a node are evaluated again: the coordinator that evaluates
them may have died.
"""


# ---------------------------------------------------------------- starts


def begin_nodes(draft: Transition, settings: EngineSettings) -> None:
    """Begin the control nodes that may start, and those that may start when these end at once; of
    several, first the one that comes first in the graph.
    """
    while draft.beginning and not draft.main_is_stopping:
        index = heappop(draft.beginning)
        if draft.mark(index) == Mark.READY:
            _begin(draft, index, settings)
            if draft.task.spec.plan.nodes[index].on_satisfied == "cancel":
                cancel_other_parents(draft, index, settings)


def _begin(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Begin the next attempt of a control node."""
    now = draft.now
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    record.issued_at = record.started_at = now
    record.first_issued_at = record.first_issued_at or now
    record.next_retry_at = record.finished_at = None
    draft.started_at = draft.started_at or now
    plan = draft.task.spec.plan
    limit = plan.nodes[index].timeouts.start_to_close_sec
    if limit is not None:
        draft.wake(now + limit)
    if index not in plan.computed:
        _start(draft, index, {}, settings)
        return
    draft.move(index, Mark.DEFERRED, data={"attempt": record.attempt})
    draft.effects.append(EvaluateArguments(index, record.attempt))
    draft.wake(now + settings.resend_sec)


def arguments_evaluated(
    draft: Transition, event: ArgumentsEvaluated, settings: EngineSettings
) -> None:
    """Start a control node with the values of its arguments, or fail it."""
    index = event.index
    record = draft.record(index)
    if (
        draft.mark(index) not in NODE_REPORTS[ArgumentsEvaluated]
        or event.attempt != record.attempt
        or not lacks_arguments(record)
    ):
        draft.ignored = True
    elif event.error is not None:
        fail_wait(draft, index, "bad_expression", event.error, settings, permanent=True)
    else:
        _start(draft, index, event.values, settings)


def _start(
    draft: Transition, index: int, values: Mapping[str, Any], settings: EngineSettings
) -> None:
    node = draft.task.spec.plan.nodes[index]
    try:
        arguments = read_arguments(node, values)
    except ValueError as error:
        fail_wait(draft, index, "bad_input", str(error), settings, permanent=True)
        return
    STARTS[node.type](draft, index, arguments, settings)


def _start_sleep(draft: Transition, index: int, io: Any, settings: EngineSettings) -> None:
    if io.for_sec is not None:
        until = min(draft.record(index).issued_at + io.for_sec, LAST_MOMENT)
    else:
        until = moment_of(io.until)
    if until <= draft.now:
        finish_node(draft, index, settings)
    else:
        _wait(draft, index, Wait("timer", until))


def _start_wait_signal(draft: Transition, index: int, io: Any, settings: EngineSettings) -> None:
    """Take the oldest signal that fits, or wait for one."""
    box = draft.signals
    found = next((signal for signal in box.kept if _fits(signal, index, io.signal)), None)
    if found is None:
        _wait(draft, index, Wait("signal", _timeout_at(draft, index, io), {"signal": io.signal}))
        return
    draft.signals = replace(box, kept=tuple(signal for signal in box.kept if signal is not found))
    draft.signals_changed = True
    _take_signal(draft, index, found, settings)


def _start_approval(draft: Transition, index: int, io: Any, settings: EngineSettings) -> None:
    arguments = {"prompt": io.prompt, "choices": list(io.choices)}
    if io.assignees is not None:
        arguments["assignees"] = list(io.assignees)
    _wait(draft, index, Wait("approval", _timeout_at(draft, index, io), arguments))


def _timeout_at(draft: Transition, index: int, io: Any) -> float | None:
    if io.timeout_sec is None:
        return None
    at: float = draft.record(index).issued_at + io.timeout_sec
    return min(at, LAST_MOMENT)


STARTS: Mapping[str, Callable[[Transition, int, Any, EngineSettings], None]] = {
    "sleep": _start_sleep,
    "wait_signal": _start_wait_signal,
    "approval": _start_approval,
}
"""Start of a node of each control type, with its arguments."""


def _wait(draft: Transition, index: int, wait: Wait) -> None:
    record = draft.edit(index)
    record.wait = wait
    data: dict[str, Any] = {"attempt": record.attempt, "waiting": wait.kind}
    if "signal" in wait.arguments:
        data["signal"] = wait.arguments["signal"]
    if wait.until is not None:
        data["until"] = datetime.fromtimestamp(wait.until, UTC).isoformat()
        draft.wake(wait.until)
    draft.move(index, Mark.DEFERRED, data=data)


# ---------------------------------------------------------------- signals


MAX_KEPT = 1_000
"""Signals of a task that no node has taken. Above this number, further ones are refused."""


def signal_received(draft: Transition, event: SignalReceived, settings: EngineSettings) -> None:
    """Give a signal to the node that has waited for it the longest, or keep it for a later one."""
    box = draft.signals
    if draft.status.terminal or event.signal_id in box.ids or len(box.kept) >= MAX_KEPT:
        draft.ignored = True
        return
    number = box.received + 1
    signal = Signal(number, event.name, event.payload, draft.now, event.nodes)
    draft.note(-1, "signal", None, {"signal": event.name, "number": number})
    index = _waiting_node(draft, signal)
    draft.signals = SignalBox(
        received=number,
        kept=(*box.kept, signal) if index is None else box.kept,
        ids=box.ids if event.signal_id is None else (*box.ids, event.signal_id),
    )
    draft.signals_changed = True
    if index is not None:
        _take_signal(draft, index, signal, settings)


def _waiting_node(draft: Transition, signal: Signal) -> int | None:
    """Return the node that has waited for a signal the longest, or None."""
    waiting = []
    for index in draft.task.spec.plan.controls:
        record = draft.record(index)
        if draft.mark(index) == Mark.DEFERRED and record.wait is not None:
            name = record.wait.arguments.get("signal")
            if name is not None and _fits(signal, index, name):
                waiting.append((record.issued_at, index))
    return min(waiting)[1] if waiting else None


def _fits(signal: Signal, index: int, name: str) -> bool:
    return signal.name == name and (signal.nodes is None or index in signal.nodes)


def _take_signal(draft: Transition, index: int, signal: Signal, settings: EngineSettings) -> None:
    draft.edit(index).result = signal.payload
    data = {"signal": signal.name, "number": signal.number}
    finish_node(draft, index, settings, data=data)


def _signal_timeout(draft: Transition, index: int, settings: EngineSettings) -> None:
    wait = draft.record(index).wait
    assert wait is not None
    _time_out(draft, index, "signal_timeout", f"signal {wait.arguments['signal']!r}", settings)


def _time_out(
    draft: Transition, index: int, reason_code: str, missing: str, settings: EngineSettings
) -> None:
    """Skip or fail a node for which nothing came in time."""
    record = draft.edit(index)
    if arguments_of(draft.task.spec.plan.nodes[index]).get("on_timeout") == "skip":
        record.wait = None
        skip(draft, index, reason_code, settings)
    else:
        error = f"no {missing} within {_until(record) - record.issued_at:g} s"
        fail_wait(draft, index, reason_code, error, settings, permanent=True)


# ---------------------------------------------------------------- decisions


def decision_made(draft: Transition, event: DecisionMade, settings: EngineSettings) -> None:
    """Finish an approval with its first decision. A rejection fails the node, unless the graph
    lets it continue.
    """
    index = event.index
    record = draft.record(index)
    if (
        draft.mark(index) not in NODE_REPORTS[DecisionMade]
        or event.attempt != record.attempt
        or record.wait is None
        or record.wait.kind != "approval"
    ):
        draft.ignored = True
        return
    draft.edit(index).result = {
        "choice": event.choice,
        "by": event.by,
        "at": datetime.fromtimestamp(draft.now, UTC).isoformat(),
        "values": event.values,
        "comment": event.comment,
    }
    on_reject = arguments_of(draft.task.spec.plan.nodes[index]).get("on_reject")
    if event.choice == REJECT and on_reject != "continue":
        error = f"{event.by} rejected it" + (f": {event.comment}" if event.comment else "")
        fail_wait(draft, index, "rejected", error, settings, permanent=True)
    else:
        finish_node(draft, index, settings, data={"choice": event.choice, "by": event.by})


def _approval_timeout(draft: Transition, index: int, settings: EngineSettings) -> None:
    _time_out(draft, index, "approval_timeout", "decision", settings)


# ---------------------------------------------------------------- ends


def fail_wait(
    draft: Transition,
    index: int,
    reason_code: str,
    error: str,
    settings: EngineSettings,
    *,
    permanent: bool = False,
) -> None:
    """Fail the current attempt of a deferred control node."""
    draft.edit(index).wait = None
    fail_attempt(draft, index, reason_code, error, settings, permanent=permanent)


TIMEOUTS: Mapping[str, Callable[[Transition, int, EngineSettings], None]] = {
    "timer": finish_node,
    "signal": _signal_timeout,
    "approval": _approval_timeout,
}
"""End of a wait of each kind when its time has come."""


# ---------------------------------------------------------------- time


def wait_woke(draft: Transition, index: int, settings: EngineSettings) -> None:
    """End the wait of a control node if its time has come, or have its arguments evaluated again.

    If several times have passed, the earliest decides.
    """
    record = draft.record(index)
    until, limit = _until(record), _limit(draft, index, record)
    if draft.now < min(until, limit):
        if record.wait is None:
            draft.effects.append(EvaluateArguments(index, record.attempt))
    elif record.wait is not None and until <= limit:
        TIMEOUTS[record.wait.kind](draft, index, settings)
    else:
        error = f"it ran longer than {limit - record.issued_at:g} s"
        fail_wait(draft, index, "start_to_close_timeout", error, settings)


def next_wait_wake(draft: Transition, index: int, settings: EngineSettings) -> float | None:
    """Return when to wake a deferred control node next, or None."""
    record = draft.record(index)
    at = min(_until(record), _limit(draft, index, record))
    if record.wait is None:
        pause = max(draft.now - record.issued_at, settings.resend_sec)
        at = min(at, draft.now + min(pause, LONGEST_PAUSE_SEC))
    return None if at == inf else at


def _until(record: NodeRecord) -> float:
    return inf if record.wait is None or record.wait.until is None else record.wait.until


def _limit(draft: Transition, index: int, record: NodeRecord) -> float:
    seconds = draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    return inf if seconds is None else record.issued_at + seconds
