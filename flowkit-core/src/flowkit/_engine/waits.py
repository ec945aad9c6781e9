"""Waits of control nodes. A node that waits is deferred: it takes no worker and no place among the
nodes in flight. What it waits for is in its record.
"""

from collections.abc import Callable, Mapping
from heapq import heappop
from math import inf
from typing import Any

from flowkit._engine.decisions import approval_timeout, start_approval
from flowkit._engine.effects import EvaluateArguments
from flowkit._engine.events import ArgumentsEvaluated
from flowkit._engine.node_ends import cancel_other_parents, finish_node
from flowkit._engine.pending_effects import lacks_arguments
from flowkit._engine.settings import EngineSettings
from flowkit._engine.signals import signal_timeout, start_wait_signal
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._engine.wait_records import fail_wait, start_wait, until_of
from flowkit._json.limits import LAST_MOMENT
from flowkit.graph._control_types import moment_of, read_arguments
from flowkit.task import Mark, NodeRecord, Wait

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
        draft.schedule(index, now + limit)
    if index not in plan.computed:
        _start(draft, index, {}, settings)
        return
    draft.move(index, Mark.DEFERRED, data={"attempt": record.attempt})
    draft.effects.append(EvaluateArguments(index, record.attempt))
    draft.schedule(index, now + settings.resend_sec)


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
        start_wait(draft, index, Wait("timer", until))


STARTS: Mapping[str, Callable[[Transition, int, Any, EngineSettings], None]] = {
    "sleep": _start_sleep,
    "wait_signal": start_wait_signal,
    "approval": start_approval,
}
"""Start of a node of each control type, with its arguments."""


# ---------------------------------------------------------------- time


def timer_ended(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Finish a sleep, or queue a loop for its next round."""
    if index in draft.task.spec.plan.nested:
        draft.move(index, Mark.READY)
        draft.queue(index)
    else:
        finish_node(draft, index, settings)


TIMEOUTS: Mapping[str, Callable[[Transition, int, EngineSettings], None]] = {
    "timer": timer_ended,
    "signal": signal_timeout,
    "approval": approval_timeout,
}
"""End of a wait of each kind when its time has come."""


def wait_woke(draft: Transition, index: int, settings: EngineSettings) -> None:
    """End the wait of a control node if its time has come, or have its arguments evaluated again.

    If several times have passed, the earliest decides.
    """
    record = draft.record(index)
    until, limit = until_of(record), _limit(draft, index, record)
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
    at = min(until_of(record), _limit(draft, index, record))
    if record.wait is None:
        pause = max(draft.now - record.issued_at, settings.resend_sec)
        at = min(at, draft.now + min(pause, LONGEST_PAUSE_SEC))
    return None if at == inf else at


def _limit(draft: Transition, index: int, record: NodeRecord) -> float:
    seconds = draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    return inf if seconds is None else record.issued_at + seconds
