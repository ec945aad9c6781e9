"""Probe of a store, for processes that say whether they are ready."""

from flowkit._runtime.concurrency import within
from flowkit._text.redaction import redacted
from flowkit.errors import FlowKitError
from flowkit.protocols import Clock, Store, TaskQuery

READY_SEC = 2.0
"""Time in which the store answers a process that is ready."""


async def why_unreadable(store: Store, clock: Clock) -> str | None:
    """Return why a store cannot be read now, or None if it can. It has two seconds to answer."""

    async def read() -> None:
        await store.list_tasks(TaskQuery(limit=1))

    try:
        if await within(READY_SEC, read, clock=clock):
            return None
    except FlowKitError as error:
        return redacted(str(error))
    return f"the store has not answered for {READY_SEC:g} s"
