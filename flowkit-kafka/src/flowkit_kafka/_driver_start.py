"""Starting the driver's objects such that whoever stops waiting leaves no connection behind."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio

_LINGER_SEC = 2.0


async def start(begin: Callable[[], Awaitable[None]]) -> None:
    """Start an object of the driver, which the caller closes, also when this is cancelled.

    Were ``AIOKafkaClient.bootstrap`` cancelled between two answers of its first broker, it would
    forget that connection without closing it. So a start goes on beside who waits for it, and who
    is cancelled waits for its end a little longer.
    """
    starting = asyncio.ensure_future(begin())
    starting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        with anyio.move_on_after(_LINGER_SEC, shield=True):
            await asyncio.wait([starting])
        raise
    finally:
        starting.cancel()
