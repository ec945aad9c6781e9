"""A proxy that can lose a server's answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketStream

from tests.servers.ports import LOOPBACK, free_ports


class Wire:
    """A connection between driver and server that can drop answers to commands of one name."""

    def __init__(self, target: int, port: int) -> None:
        self.target, self.port = target, port
        self.command = b""
        self.times = 0

    def lose(self, command: str, *, times: int = 1) -> None:
        """Close the connection instead of passing on the next answers to this command."""
        # The first field of a command's document is a string with the name of the command.
        self.command, self.times = b"\x02" + command.encode() + b"\x00", times

    async def carry(self, client: SocketStream) -> None:
        asked = bytearray()
        async with (
            client,
            await anyio.connect_tcp(LOOPBACK, self.target) as server,
            anyio.create_task_group() as tasks,
        ):

            async def questions() -> None:
                async for data in client:
                    asked[:] = data
                    await server.send(data)
                tasks.cancel_scope.cancel()

            tasks.start_soon(questions)
            async for data in server:
                if self.times and self.command in asked:
                    self.times -= 1
                    break
                await client.send(data)
            tasks.cancel_scope.cancel()

    async def carry_one(self, client: SocketStream) -> None:
        try:
            await self.carry(client)
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass


@asynccontextmanager
async def wire(target: int) -> AsyncIterator[Wire]:
    (port,) = free_ports(1)
    between = Wire(target, port)
    async with (
        await anyio.create_tcp_listener(local_host=LOOPBACK, local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, between.carry_one)
        yield between
        tasks.cancel_scope.cancel()
