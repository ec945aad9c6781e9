"""Programs that handlers run in process groups of their own."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from subprocess import DEVNULL, PIPE, CompletedProcess

import anyio
from anyio.abc import ByteReceiveStream, Process

from flowkit.protocols import Clock

POLL_SEC = 0.05


async def run_process(
    cmd: Sequence[str],
    *,
    stops: list[Callable[[], None]],
    cancelled: Callable[[], bool],
    clock: Clock,
    input: bytes | None = None,  # noqa: A002
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> CompletedProcess[bytes]:
    """Run a program to its end. Meanwhile ``stops`` contains a function that asks it to end.

    If this call is cancelled, the whole group is killed. If the program ends after it was asked to,
    the rest of its group is killed.
    """
    process = await anyio.open_process(
        cmd,
        stdin=PIPE if input is not None else DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )

    stopping = anyio.Event()

    def stop() -> None:
        _signal_group(process, signal.SIGTERM)
        stopping.set()

    stops.append(stop)
    try:
        if cancelled():
            stop()
        output = await _communicate(process, input, stopping, clock)
        return CompletedProcess(cmd, process.returncode or 0, *output)
    finally:
        stops.remove(stop)
        if process.returncode is None or cancelled():
            _signal_group(process, signal.SIGKILL)  # also the children of the program
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def _communicate(
    process: Process, data: bytes | None, stopping: anyio.Event, clock: Clock
) -> tuple[bytes, bytes]:
    output: list[bytes] = [b"", b""]

    async def read(place: int, stream: ByteReceiveStream) -> None:
        output[place] = b"".join([chunk async for chunk in stream])

    async def write() -> None:
        if process.stdin is not None:
            with contextlib.suppress(anyio.BrokenResourceError, BrokenPipeError, ConnectionError):
                await process.stdin.send(data or b"")
            await process.stdin.aclose()

    async def end_the_rest() -> None:
        await stopping.wait()
        # Not process.wait(): it returns only when no process has the pipes open.
        while process.returncode is None:
            await clock.sleep(POLL_SEC)
        _signal_group(process, signal.SIGKILL)

    async with anyio.create_task_group() as rest:
        rest.start_soon(end_the_rest)
        async with anyio.create_task_group() as group:
            for place, stream in enumerate((process.stdout, process.stderr)):
                if stream is not None:
                    group.start_soon(read, place, stream)
            group.start_soon(write)
        rest.cancel_scope.cancel()
    await process.wait()
    return output[0], output[1]


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
