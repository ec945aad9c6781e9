"""Early ends of pauses."""

from collections.abc import Mapping

from flowkit._engine import RunNowRequested, pause_end
from flowkit._tasks.views import shown_status
from flowkit.client._nodes import StoredNode, read_node
from flowkit.client._session import Session
from flowkit.errors import TaskRefused
from flowkit.task import ClaimKind, Mark

PLACE_OF: Mapping[ClaimKind, str] = {
    "cache": "the result for its cache key",
    "key": "its concurrency key",
    "rate": "its rate",
}
_INSTEAD = {
    "signal": "waits for a signal: send it",
    "approval": "waits for a decision: decide",
}


async def run_now(session: Session, task_id: str, node_id: str) -> None:
    """End the pause of a node."""
    event: RunNowRequested | None = None
    while True:
        node = await read_node(session, task_id, node_id)
        until = pause_end(node.mark, node.record)
        if event is not None and until != event.until:
            return  # this pause has ended meanwhile
        if until is None:
            raise _refusal(node)
        event = RunNowRequested(node.index, until)
        if await session.change(task_id, event, node.stored):
            return


def _refusal(node: StoredNode) -> TaskRefused:
    mark, wait = node.mark, node.record.wait
    does = f"is {shown_status(node.task, node.index, mark)}"
    if mark == Mark.DEFERRED and wait is not None:
        does = _INSTEAD.get(wait.kind, does)
    of_task = node.task.key
    if of_task is not None and (of_task.is_asking or of_task.is_open):
        does = f"waits until its task has key {of_task.key!r}"
    elif (kind := node.record.asks_for) is not None and (claim := node.record.claim(kind)):
        name = "" if kind == "cache" else f" {claim.key!r}"
        does = f"waits for {PLACE_OF[kind]}{name}"
    return TaskRefused(
        f"{node.name} {does}; it has no pause to end: it neither sleeps nor waits for its next"
        " attempt or round"
    )
