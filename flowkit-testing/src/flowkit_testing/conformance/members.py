"""Members of groups in separate processes.

The fixtures ``kill_member`` and ``pause_member`` of the bus suite use them.
"""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from flowkit_testing.conformance._processes import Opener, OtherProcess, other_processes


class MemberProcesses:
    """Starter of members on a bus that another process can open.

    ``opener`` is ``module:function``; the function takes the ``arguments`` and returns a bus that
    is not entered yet.
    """

    def __init__(self, opener: str, *arguments: object) -> None:
        self._opener = Opener(opener, arguments)

    async def kill(self, topic: str, group: str, count: int) -> Sequence[bytes]:
        """Start a member, kill it, and return the values that it had received."""
        async with self._member(topic, group, count) as member:
            return member.values

    @asynccontextmanager
    async def pause(self, topic: str, group: str, count: int) -> AsyncIterator["MemberProcess"]:
        """Start a member and pause it while it holds its messages."""
        async with self._member(topic, group, count) as member:
            os.kill(member.pid, signal.SIGSTOP)
            yield member

    @asynccontextmanager
    async def _member(self, topic: str, group: str, count: int) -> AsyncIterator["MemberProcess"]:
        job = ("receive_and_acknowledge", {"topic": topic, "group": group, "count": count})
        async with other_processes(self._opener, job) as (process,):
            await process.go()
            yield MemberProcess(process, [bytes.fromhex(value) for value in await process.line()])


class MemberProcess:
    """Member that has received its messages."""

    def __init__(self, process: OtherProcess, values: Sequence[bytes]) -> None:
        self._process = process
        self.values = values

    @property
    def pid(self) -> int:
        return self._process.process.pid

    async def acknowledge(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        await self._process.go()
        assert await self._process.line() == "acknowledged"


__all__ = ["MemberProcess", "MemberProcesses"]
