"""TCP proxy that degrades links: slow, narrow, cut, or half open."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

from anyio.from_thread import start_blocking_portal

from tests.servers.ports import LOOPBACK, free_ports

CHUNK = 64 * 1024
A_MOMENT_SEC = 0.05
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Faults of a link."""

    delay_sec: float = 0.0
    """Delay of each chunk, in both directions, between half and one and a half times this value.
    Later chunks wait as well.
    """
    bytes_per_sec: float | None = None
    cut: bool = False
    """Reset (RST) all present and new connections."""
    swallow: bool = False
    """Keep connections open but drop all data. These connections never recover, as when a router
    has lost their state.
    """


CLEAR = Behaviour()


class _Connection:
    """One client's connection through the proxy to the server."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.lost = False
        self._writers = [writer]
        self._over = False

    def joined_by(self, writer: asyncio.StreamWriter) -> None:
        """Add the connection to the server; reset it if the client's end is already closed."""
        self._writers.append(writer)
        if self._over:
            _reset(writer)

    def reset(self) -> None:
        self._over = True
        for writer in self._writers:
            _reset(writer)


class Link:
    """A port in front of a server, made by :meth:`Proxy.link`.

    Its methods may be called from any thread.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self.port = free_ports(1)[0]
        self.target: int | None = None
        """Port of the server; while it is None, connections are reset."""
        self._call = call
        self._behaviour = CLEAR
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def behave(self, behaviour: Behaviour) -> None:
        """Apply these faults to all present and new connections."""
        self._call(self._behave, behaviour)

    def _behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        for connection in tuple(self._connections):
            if behaviour.cut:
                connection.reset()
            connection.lost = connection.lost or behaviour.swallow

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self.port)

    async def _close(self) -> None:
        # asyncio does not close a connection that was accepted while the server closes.
        await asyncio.sleep(A_MOMENT_SEC)
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(A_MOMENT_SEC)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        task = asyncio.get_running_loop().create_task(self._forward(connection, reader, writer))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connections.discard(connection)
            connection.reset()

        # Not in the task itself: a task that is cancelled before its first step runs no code.
        task.add_done_callback(over)

    async def _forward(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._behaviour.swallow:
            connection.lost = True
            await _drain(reader)
            return
        if self._behaviour.cut or self.target is None:
            return
        try:
            behind_reader, behind = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            return
        connection.joined_by(behind)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(connection, reader, behind))
            group.create_task(self._pump(connection, behind_reader, writer))

    async def _pump(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                how = self._behaviour
                if how.delay_sec:
                    await asyncio.sleep(how.delay_sec * random.uniform(0.5, 1.5))
                if how.bytes_per_sec:
                    await asyncio.sleep(len(data) / how.bytes_per_sec)
                if not connection.lost:
                    writer.write(data)
                    await writer.drain()
        if not connection.lost:  # the peer of a lost connection must not see that it closes
            writer.close()


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(CHUNK):
            pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with an RST."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Proxy:
    """Links, served by their own thread between entering and leaving."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            self._links: list[Link] = []
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._stack:
            for link in self._links:
                self._portal.call(link._close)

    def link(self, target: int | None = None) -> Link:
        """Open a new port in front of ``target``."""
        link = Link(self._portal.call)
        link.target = target
        self._portal.call(link._open)
        self._links.append(link)
        return link
