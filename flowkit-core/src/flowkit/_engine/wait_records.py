"""Waits in the records of control nodes: their beginning, and the ends that they share."""

from datetime import UTC, datetime
from math import inf
from typing import Any

from flowkit._engine.node_ends import fail_attempt, skip
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._json.limits import LAST_MOMENT
from flowkit.graph._control_types import arguments_of
from flowkit.task import Mark, NodeRecord, Wait


def start_wait(draft: Transition, index: int, wait: Wait) -> None:
    """Defer a control node until its wait ends."""
    record = draft.edit(index)
    record.wait = wait
    data: dict[str, Any] = {"attempt": record.attempt, "waiting": wait.kind}
    if "signal" in wait.arguments:
        data["signal"] = wait.arguments["signal"]
    if wait.until is not None:
        data["until"] = datetime.fromtimestamp(wait.until, UTC).isoformat()
        draft.schedule(index, wait.until)
    draft.move(index, Mark.DEFERRED, data=data)


def timeout_at(draft: Transition, index: int, io: Any) -> float | None:
    """Return when ``timeout_sec`` of a node ends, or None."""
    if io.timeout_sec is None:
        return None
    at: float = draft.record(index).issued_at + io.timeout_sec
    return min(at, LAST_MOMENT)


def until_of(record: NodeRecord) -> float:
    """Return when the wait of a node ends in any case; infinity if it has no such time."""
    return inf if record.wait is None or record.wait.until is None else record.wait.until


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


def time_out(
    draft: Transition, index: int, reason_code: str, missing: str, settings: EngineSettings
) -> None:
    """Skip or fail a node for which nothing came in time."""
    record = draft.edit(index)
    if arguments_of(draft.task.spec.plan.nodes[index]).get("on_timeout") == "skip":
        record.wait = None
        skip(draft, index, reason_code, settings)
    else:
        error = f"no {missing} within {until_of(record) - record.issued_at:g} s"
        fail_wait(draft, index, reason_code, error, settings, permanent=True)
