"""Members of groups in processes of their own, for the fixtures ``kill_member`` and ``pause_member`` of the bus suite."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import Process


class MemberProcesses:
    """Starts members over a bus that another process can open.

    ``opener`` is ``module:function``; the function takes the ``arguments`` and returns a bus that was not entered yet.
    """

    def __init__(self, opener: str, *arguments: object) -> None:
        self._bus = [opener, json.dumps(arguments)]

    async def kill(self, topic: str, group: str, count: int) -> Sequence[bytes]:
        """What ``kill_member`` does."""
        async with self._member(topic, group, count) as member:
            return member.values

    @asynccontextmanager
    async def pause(self, topic: str, group: str, count: int) -> AsyncIterator["MemberProcess"]:
        """What ``pause_member`` does."""
        async with self._member(topic, group, count) as member:
            os.kill(member.pid, signal.SIGSTOP)
            yield member

    @asynccontextmanager
    async def _member(self, topic: str, group: str, count: int) -> AsyncIterator["MemberProcess"]:
        command = [sys.executable, "-m", f"{__package__}._member_process", *self._bus, topic, group, str(count)]
        # What this process can import, the other one must find as well.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        async with await anyio.open_process(command, stderr=None, env=environment) as process:
            try:
                member = MemberProcess(process)
                member.values = [bytes.fromhex(await member.line()) for _ in range(count)]
                yield member
            finally:
                if process.returncode is None:
                    process.kill()


class MemberProcess:
    """One member, which has received its messages."""

    values: Sequence[bytes]

    def __init__(self, process: Process) -> None:
        self._process = process
        self._printed = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def acknowledge(self) -> None:
        assert self._process.stdin is not None
        os.kill(self.pid, signal.SIGCONT)
        await self._process.stdin.send(b"acknowledge\n")
        assert await self.line() == "acknowledged"

    async def line(self) -> str:
        """The next line that the process prints."""
        assert self._process.stdout is not None
        while b"\n" not in self._printed:
            try:
                self._printed += await self._process.stdout.receive()
            except anyio.EndOfStream:
                raise AssertionError(f"the member ended with status {await self._process.wait()}; its errors are on stderr") from None
        line, _, self._printed = self._printed.partition(b"\n")
        return line.decode()


__all__ = ["MemberProcess", "MemberProcesses"]
