"""A process of the simulated cluster: code that can be killed at any step."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.protocols import utc
from flowkit_testing.simulation._executions import Execution
from flowkit_testing.simulation._loop import OWNER, SimLoop


class State(Enum):
    """The state of a process."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"
    ENDED = "ended"


class SimClock:
    """The :class:`~flowkit.protocols.Clock` of one process.

    Its wall clock may be wrong by ``skew`` seconds. Its monotonic clock never goes back.
    """

    def __init__(self, loop: SimLoop, epoch: float) -> None:
        self._loop = loop
        self._epoch = epoch
        self._born = self._loop.time()
        self.skew = 0.0

    def now(self) -> float:
        return self._epoch + self._loop.time() + self.skew

    def now_dt(self) -> datetime:
        return utc(self.now())

    def monotonic(self) -> float:
        return self._loop.time() - self._born + 1000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))


class Host(Protocol):
    """The world that a process runs in, as the process sees it."""

    loop: SimLoop
    epoch: float
    context: contextvars.Context

    def crash(self, process: "Process", how: str, kind: str = "crash") -> None:
        """Kill a process."""

    def process_ended(self, process: "Process") -> None:
        """Record that a process ended by itself."""

    def execution_began(self, process: "Process", execution: Execution, run: object) -> None:
        """Record a call of a handler. Calls with the same ``run`` belong to one run of a node."""


class Process:
    """Tasks and callbacks that run, pause and die together.

    ``body`` is the program of the process. Each turn in the event loop is a step. Between two steps
    the process can be paused or killed; after its death none of its code runs.
    """

    def __init__(
        self, host: Host, name: str, role: str, body: Callable[["Process"], Awaitable[None]]
    ) -> None:
        self._host = host
        self.name = name
        self.role = role
        self.state = State.RUNNING
        self.steps = 0
        self.crash_at: int | None = None
        self.crash_kind = "crash"
        self.clock = SimClock(host.loop, host.epoch)
        self.service: Any = None
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.stopping = asyncio.Event()
        self.stop_grace: float | None = None
        self.error: BaseException | None = None
        self.subscriptions: list[Any] = []
        """Its subscriptions in groups, which end some time after the process."""
        self._held: list[asyncio.Handle] = []
        self._more: list[asyncio.Task[None]] = []
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, self)
        self._main = host.loop.create_task(self._run(body), context=self.context)
        self._main.add_done_callback(self._on_end, context=host.context)

    async def _run(self, body: Callable[["Process"], Awaitable[None]]) -> None:
        await body(self)

    def start_soon(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run another coroutine as code of this process."""
        self._more.append(self._host.loop.create_task(call(), context=self.context.copy()))

    def _on_end(self, main: "asyncio.Task[None]") -> None:
        if self.state is State.DEAD:
            return
        self.state = State.ENDED
        if not main.cancelled():
            self.error = main.exception()
        self.ended.set()
        self._host.process_ended(self)

    @property
    def alive(self) -> bool:
        return self.state in (State.RUNNING, State.PAUSED)

    def failed_permanently(self) -> bool:
        """Return whether it ended with an error other than an unreachable bus or store."""
        return self.error is not None and not isinstance(
            self.error, BusUnavailable | StoreUnavailable
        )

    def admits(self, handle: asyncio.Handle) -> bool:
        """Return whether a callback of this process may run now.

        The callbacks of a process that has ended never run.
        """
        state = self.state
        if state is State.RUNNING:
            self.steps += 1
            if self.steps != self.crash_at:
                return True
            self._host.crash(self, f"at its step {self.steps}", self.crash_kind)
            return False
        if state is State.PAUSED:
            self._held.append(handle)
        return False

    def executes(
        self, task_id: str, node_id: str, attempt: int, batch_uid: str | None, run: object
    ) -> None:
        """Record that this process calls a handler now."""
        at = self._host.loop.time()
        execution = Execution(at, self.name, task_id, node_id, attempt, batch_uid)
        self._host.execution_began(self, execution, run)

    def die_at_start(self) -> None:
        """Die when the running code suspends next, before it can report anything."""
        self.crash_at = self.steps + 1
        self.crash_kind = "crash_at_start"

    def die(self) -> None:
        """Die now. No further code runs: no ``finally``, no ``except``."""
        self.state = State.DEAD
        self._held.clear()
        self.ended.set()

    def pause(self) -> None:
        """Hold back all callbacks, as SIGSTOP does."""
        self.state = State.PAUSED

    def resume(self) -> None:
        """Continue, and run the callbacks that were held back."""
        self.state = State.RUNNING
        held, self._held = self._held, []
        self._host.loop.put_back(held)

    def stop(self, grace: float | None = None) -> None:
        """Ask the process to end in order."""
        self.stop_grace = grace
        self.stopping.set()


def current_process() -> Process | None:
    """Return the process whose code runs now; None outside the processes."""
    owner = OWNER.get()
    return owner if isinstance(owner, Process) else None
