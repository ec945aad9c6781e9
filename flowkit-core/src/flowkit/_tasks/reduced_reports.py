"""Reports without payloads, for tasks that cannot be stored with the original reports."""

from collections.abc import Sequence

from flowkit._engine import Event, FunctionFailed, FunctionReturned
from flowkit._text.redaction import writable
from flowkit.errors import FlowKitError, RecordTooLarge
from flowkit.messages import NodeFailed, NodeProgressed, NodeReleased, NodeSucceeded


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
        case NodeProgressed() | NodeReleased() if event.progress is not None:
            return event.model_copy(update={"progress": None})
        case _:
            return event
