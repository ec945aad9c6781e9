"""Streams of server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import cast

import anyio
import anyio.lowlevel
from fastapi import Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from flowkit import LogLine, TaskEvent
from flowkit.errors import FlowKitError, StoreUnavailable
from flowkit.protocols import Clock
from flowkit_web._problems import problem_of

COMMENT = b":\n\n"
ITEMS_A_TURN = 100
"""Items after which other clients have a turn, and the server sees whether this one has left. A
store and a connection may give and take a long history without a pause.
"""
END = b"event: end\ndata: {}\n\n"


class Streams:
    """The open streams of an application."""

    def __init__(self, *, most: int) -> None:
        self.most = most
        self.open = 0
        self.stopping = anyio.Event()

    @property
    def is_full(self) -> bool:
        return self.open >= self.most


class EventStream(Response):
    """Response that follows the events or the log lines of a task until its end.

    The id of each event is its ``seq``; log lines have none. An item is read from the store when
    the client has taken the one before, so a slow client needs no memory. The stream ends with an
    event ``end``, or with ``error`` and a problem document. Without either of them, the client
    connects again, for events with ``Last-Event-ID``.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        items: AsyncIterator[TaskEvent] | AsyncIterator[LogLine],
        *,
        streams: Streams,
        clock: Clock,
        heartbeat_sec: float,
        is_allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        """Follow ``items``, as long as it ``is_allowed``, which is asked at each heartbeat."""
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._items = cast("AsyncGenerator[TaskEvent | LogLine, None]", items)
        self._streams = streams
        self._clock = clock
        self._heartbeat_sec = heartbeat_sec
        self._is_allowed = is_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends, the client leaves or the server stops."""

        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        self._streams.open += 1
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async with anyio.create_task_group() as tasks:
                for end in (
                    self._followed(write),
                    self._left(receive),
                    self._streams.stopping.wait(),
                    self._heartbeats(write),
                    self._refused(),
                ):
                    tasks.start_soon(_then_cancel, end, tasks.cancel_scope)
            await write(b"", more=False)
        finally:
            self._streams.open -= 1

    async def _followed(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write the items until the task has ended."""
        try:
            async with aclosing(self._items) as items:
                written = 0
                async for item in items:
                    if (written := written + 1) % ITEMS_A_TURN == 0:
                        await anyio.lowlevel.checkpoint()
                    id_line = b"id: %d\n" % item.seq if isinstance(item, TaskEvent) else b""
                    await write(b"%bdata: %b\n\n" % (id_line, to_json(item)))
        except FlowKitError as error:
            document = to_json(problem_of(error).document, exclude_none=True)
            await write(b"event: error\ndata: %b\n\n" % document)
        else:
            await write(END)

    async def _heartbeats(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write comments, also while the store does not answer."""
        while True:
            await self._clock.sleep(self._heartbeat_sec)
            await write(COMMENT)

    async def _refused(self) -> None:
        """Return when the caller's token is removed."""
        while True:
            await self._clock.sleep(self._heartbeat_sec)
            # While the store is away it has nothing to show, and the token is checked again later.
            with suppress(StoreUnavailable):
                if not await self._is_allowed():
                    return

    @staticmethod
    async def _left(receive: Receive) -> None:
        """Return when the client has left."""
        while (await receive())["type"] != "http.disconnect":
            pass


async def _then_cancel(end: Awaitable[object], scope: anyio.CancelScope) -> None:
    await end
    scope.cancel()
