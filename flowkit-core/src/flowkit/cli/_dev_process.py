"""A worker process of ``flowkit dev``, as its parent sees it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any, Self

import anyio

from flowkit._embedded import HEARTBEAT_SEC
from flowkit._records.worker_sessions import WorkerSession
from flowkit.cli._dev_places import Place, frame_in, users_place
from flowkit.cli._dev_worker import ASK

STOP_GRACE_SEC = 10.0
"""Time for the runs of a worker to end when it is stopped or replaced."""
KILL_SEC = STOP_GRACE_SEC + 5.0
LOOK_SEC = 0.1
ANSWER_SEC = 2.0
BLOCKED_SEC = 5.0
"""Time without a message after which a worker that is to end is killed."""
READ_BYTES = 65_536
HAS_MESSAGES = os.name == "posix"
"""Whether a worker can get a pipe to its parent. Else a silent worker is not noticed."""
Failures = MutableMapping[tuple[str, str, int], str]
"""Places of the last failures in the user's code, by task, node and attempt."""


class WorkerProcess:
    """A worker process: its state, and the messages that it sends."""

    def __init__(self, name: str, process: Process, pipe: int, failures: Failures) -> None:
        self.name = name
        self.is_loaded = False
        """Whether it has loaded its handlers."""
        self.session: WorkerSession | None = None
        self.silent_sec = 0.0
        """Time without a message."""
        self.was_killed = False
        self._process = process
        self._pipe = pipe
        self._looked_at = time.monotonic()
        self._rest = b""
        self._can_answer = False
        self._stack: list[Place] = []
        self._failures = failures

    @classmethod
    async def start(
        cls,
        name: str,
        *,
        sources: Sequence[str],
        roles: Collection[str],
        config: Mapping[str, Any],
        failures: Failures,
    ) -> Self:
        """Start a process that loads handlers from ``sources`` and serves ``roles``.

        The places where its runs fail are added to ``failures``.
        """
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        settings = {
            "pipe": writer if HAS_MESSAGES else None,
            "sources": list(sources),
            "config": {
                **config,
                "roles": list(roles),
                "worker_id": name,
                "hb_interval_sec": HEARTBEAT_SEC,
                "stop_grace_sec": STOP_GRACE_SEC,
            },
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "flowkit.cli._dev_worker", json.dumps(settings)),
                stdin=PIPE,
                pass_fds=[writer] if HAS_MESSAGES else [],
                # Ctrl-C goes to this process only, which stops the worker.
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return cls(name, process, reader, failures)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    # ------------------------------------------------ messages

    def look(self) -> None:
        """Read the messages, and measure the silence.

        Time in which this process did not look counts little: the worker may have been suspended
        with it.
        """
        if self.returncode is not None or not HAS_MESSAGES:
            return
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, 2 * LOOK_SEC), now
        self.silent_sec = 0.0 if self.read() else self.silent_sec + passed

    async def place(self) -> Place | None:
        """Return the place in the user's code that the main thread executes, if it answers."""
        if not self._can_answer or ASK is None:
            return None
        self._stack.clear()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(ASK)
        with anyio.move_on_after(ANSWER_SEC):
            while not self._stack:
                await anyio.sleep(LOOK_SEC)
                self.read()
        await anyio.sleep(LOOK_SEC)
        self.read()
        return users_place(self._stack)

    def read(self) -> bool:
        """Read what is in the pipe. Return whether it has a message of a loaded worker."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, READ_BYTES):
                data += part
        *lines, self._rest = (self._rest + data).split(b"\n")
        is_alive = False
        for line in lines:
            is_alive |= self._take(line.decode(errors="replace"))
        return is_alive

    def _take(self, line: str) -> bool:
        """Take a line in. Return whether it is a message of a loaded worker."""
        if not line.startswith("{"):
            if (place := frame_in(line)) is not None:
                self._stack.append(place)
            return False
        message = json.loads(line)
        self._can_answer = True
        if "failed" in message:
            self._failures[tuple(message["failed"])] = message["place"]
        self.is_loaded |= message.get("is_loaded", True)
        return self.is_loaded

    # ------------------------------------------------ end

    async def wait(self) -> None:
        await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self.was_killed = True
            self._process.kill()

    async def drain(self) -> None:
        """Stop the worker: its runs may end. Kill it if it does not end in time, or is blocked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with anyio.move_on_after(KILL_SEC):
            while self.returncode is None and self.silent_sec < BLOCKED_SEC:
                with anyio.move_on_after(LOOK_SEC):
                    await self._process.wait()
                self.look()
        self.kill()
        await self._process.wait()

    def close(self) -> None:
        """Read the last messages of a process that has ended, and close the pipe."""
        self.read()
        os.close(self._pipe)

    def ending(self) -> str:
        """Return how the process has ended."""
        status = self._process.returncode or 0
        return (
            f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        )
