"""Other processes that use an adapter, started by the suites."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

LONGEST_LINE = 1_000_000
START_SEC = 60.0
"""Time limit for a process to import the adapter and to open it."""


@dataclass(frozen=True, slots=True)
class Opener:
    """Function that another process imports and calls to open the same data.

    ``function`` is its name, such as ``my_package.testing:open_store``. It is called with
    ``arguments``, which are JSON values. It returns an asynchronous context manager: a store or bus
    that is not yet entered, or one that yields an artifact store.
    """

    function: str
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherProcess:
    """Process that does a job with the adapter."""

    process: anyio.abc.Process
    lines: BufferedByteReceiveStream

    async def line(self) -> Any:
        """Return the next line that the process prints."""
        try:
            return json.loads(await self.lines.receive_until(b"\n", LONGEST_LINE))
        except (anyio.EndOfStream, anyio.IncompleteRead):
            raise AssertionError(
                f"the other process ended with status {await self.process.wait()}; its errors are"
                " on stderr"
            ) from None

    async def go(self) -> None:
        """Start the job, or continue it."""
        assert self.process.stdin is not None
        await self.process.stdin.send(b"go\n")

    async def kill(self) -> None:
        """Kill the process with SIGKILL while it works."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def other_processes(
    opener: Opener | None, *jobs: tuple[str, dict[str, Any]]
) -> AsyncIterator[list[OtherProcess]]:
    """Start processes that open the adapter and wait for ``go``.

    Leaving kills those that still run."""
    if opener is None:
        pytest.skip("the adapter cannot be opened by another process: needs the fixture opener")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in [*sys.path, ""]),
    }
    where = json.dumps([opener.function, *opener.arguments])
    async with AsyncExitStack() as stack:
        found = []
        for job in jobs:
            command = [
                sys.executable,
                "-m",
                "flowkit_testing._conformance_jobs",
                where,
                json.dumps(job),
            ]
            process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stderr=None, env=environment
            )
            stack.push_async_callback(_end, process)
            assert process.stdout is not None
            found.append(OtherProcess(process, BufferedByteReceiveStream(process.stdout)))
        with anyio.fail_after(START_SEC):
            for one in found:
                assert await one.line() == "ready"
        yield found


async def _end(process: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.aclose()
