"""Smaller rounds of events, for tasks that cannot be stored with all events or with a payload."""

import logging
from collections.abc import Mapping, Sequence

from flowkit._engine import (
    ChildFailed,
    ChildFinished,
    Event,
    FunctionFailed,
    FunctionReturned,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    OutputEvaluated,
    ShardsCollected,
)
from flowkit._text.redaction import writable
from flowkit.errors import FlowKitError, RecordTooLarge
from flowkit.messages import NodeFailed, NodeProgressed, NodeReleased, NodeSucceeded

logger = logging.getLogger(__name__)


def smaller_rounds(
    pending: Mapping[str, Sequence[Event]], error: FlowKitError
) -> list[dict[str, Sequence[Event]]]:
    """Return the rounds that replace one which cannot be stored, the last one first: each event
    alone, or a single event without its payload. If there is nothing to reduce, return none.
    """
    single: list[dict[str, Sequence[Event]]] = [
        {task_id: events[place : place + 1]}
        for task_id, events in pending.items()
        for place in range(max(len(events), 1))
    ]
    if len(single) > 1:
        return single[::-1]
    ((task_id, events),) = pending.items()
    reduced = without_payloads(events, error)
    if reduced == list(events):
        return []
    logger.warning(
        "Task %s cannot be stored: %s",
        task_id,
        error,
        extra={"action": "task_unstorable", "task_id": task_id},
    )
    return [{task_id: reduced}]


def without_payloads(events: Sequence[Event], error: FlowKitError) -> list[Event]:
    """Return the events with a failure in place of each result, and without progress. Other events
    stay as they are.
    """
    if isinstance(error, RecordTooLarge):
        reason, permanent, why = (
            "result_too_large",
            True,
            f"the task would be too large to store: {error}",
        )
    else:
        reason, permanent, why = (
            "result_not_encoded",
            False,
            f"the result cannot be stored: {error}",
        )
    return [_without_payload(event, reason, permanent, writable(why)) for event in events]


def _without_payload(event: Event, reason: str, permanent: bool, why: str) -> Event:
    match event:
        case NodeSucceeded():
            return NodeFailed(
                task_id=event.task_id,
                index=event.index,
                attempt=event.attempt,
                token=event.token,
                worker_id=event.worker_id,
                started_at=event.started_at,
                at=event.at,
                reason_code=reason,
                permanent=permanent,
                error=why,
            )
        case FunctionReturned():
            return FunctionFailed(
                event.index, event.attempt, event.token, event.at, reason, permanent, why
            )
        case OutputEvaluated(error=None):
            return OutputEvaluated(error=f"{reason}: {why}", since=event.since)
        case MapOpened() | MapGrew() | MapCollected() | ShardsCollected():
            return MapFailed(event.index, event.attempt, reason, why)
        case ChildFinished():
            return ChildFailed(event.index, event.attempt, reason, why, permanent, event.iteration)
        case NodeProgressed() | NodeReleased() if event.progress is not None:
            return event.model_copy(update={"progress": None})
        case _:
            return event
