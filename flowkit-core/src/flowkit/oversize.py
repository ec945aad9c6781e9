"""What is told of a node in the place of a report that makes its task's record larger than the store takes."""

from collections.abc import Sequence

from flowkit.engine import Event, FunctionFailed, FunctionReturned
from flowkit.messages import NodeFailed, NodeProgressed, NodeReleased, NodeSucceeded

REASON = "result_too_large"


def without_payloads(events: Sequence[Event], why: str) -> list[Event]:
    """The events, with a failure for each result, and without progress. Those that carry neither are as they were."""
    return [_without_payload(event, why) for event in events]


def _without_payload(event: Event, why: str) -> Event:
    match event:
        case NodeSucceeded():
            return NodeFailed(
                task_id=event.task_id, index=event.index, attempt=event.attempt, token=event.token, worker_id=event.worker_id,
                started_at=event.started_at, at=event.at, reason_code=REASON, permanent=True, error=why,
            )  # fmt: skip
        case FunctionReturned():
            return FunctionFailed(event.index, event.attempt, event.token, event.at, REASON, True, why)
        case NodeProgressed() | NodeReleased() if event.progress is not None:
            return event.model_copy(update={"progress": None})
        case _:
            return event
