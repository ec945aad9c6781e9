"""Handling of the keyed records that are due."""

from collections.abc import Awaitable, Callable, Sequence

from flowkit.protocols import Clock, KeyedRecord, RecordStore


async def handle_due(
    records: RecordStore,
    kind: str,
    handle: Callable[[Sequence[KeyedRecord]], Awaitable[int]],
    *,
    clock: Clock,
    at_once: int,
) -> None:
    """Handle the records of a kind until none is due, ``at_once`` of them together.

    ``handle`` returns how many are not due any more. The others stay due, and do not hide later
    ones.
    """
    left = 0
    while True:
        limit = at_once + left
        due = await records.due(kind, before=clock.now(), limit=limit)
        done = await handle(due) if due else 0
        if not done and len(due) < limit:
            return
        left = len(due) - done
