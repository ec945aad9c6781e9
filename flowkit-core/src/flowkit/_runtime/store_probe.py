"""Probe of a store, for processes that say whether they are ready."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from flowkit._runtime.concurrency import within
from flowkit._text.redaction import redacted
from flowkit.errors import FlowKitError, StoreUnavailable
from flowkit.protocols import Clock, Store, TaskQuery

T = TypeVar("T")

READY_SEC = 2.0
"""Time in which the store answers a process that is ready."""
SLOW_SEC = 4.0
"""Time after which it is checked whether the store answers at all."""


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


async def while_readable(work: Callable[[], Awaitable[T]], *, store: Store, clock: Clock) -> T:
    """Return the result of work with a store, which may take long while the store answers others.

    Raises:
        StoreUnavailable: the work took longer than four seconds, and the store did not answer a
            probe for two more. The work is cancelled; its writes may or may not have been applied.
    """
    reason: str | None = None

    async def watch() -> None:
        nonlocal reason
        while reason is None:
            await clock.sleep(SLOW_SEC)
            reason = await why_unreadable(store, clock)
        scope.cancel()

    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(watch())
        try:
            return await work()
        finally:
            watching.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({watching})
    raise StoreUnavailable(f"the store does not answer: {reason}")
