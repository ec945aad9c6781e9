# ruff: noqa: SLF001 - asyncio has no public way to say what is ready
"""An event loop on virtual time that runs callbacks in the same order in every interpreter."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from heapq import heappop
from itertools import count
from types import AsyncGeneratorType
from typing import Any, NoReturn, Protocol


class Owner(Protocol):
    """A process of the simulation, as the event loop sees it."""

    name: str

    def admits(self, handle: asyncio.Handle) -> bool:
        """Return whether a callback of this process may run now."""


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar(
    "flowkit simulated process", default=None
)
"""The process whose code runs. Tasks and callbacks inherit it. None stands for code outside the
processes.
"""

STEPS_AT_ONE_MOMENT = 500_000
"""The limit of callbacks while no time passes. No correct program needs as many."""

_births = count(1)


def restart_numbers() -> None:
    """Restart the serial numbers at 1, so that each simulation gives the same ones."""
    global _births
    _births = count(1)


def next_number() -> int:
    return next(_births)


class SimulationError(Exception):
    """The code did something that a simulation cannot contain, or nothing can continue."""


class _Counted:
    """An object whose hash is a serial number.

    Sets of such objects iterate in the same order in every interpreter.
    """

    __slots__ = ()
    _number: int

    def __hash__(self) -> int:
        return self._number


class SimFuture(_Counted, asyncio.Future[Any]):
    """A future of a simulation."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = next_number()
        super().__init__(loop=loop)


class SimTask(_Counted, asyncio.Task[Any]):
    """A task of a simulation, with the process that owns it."""

    def __init__(
        self,
        coro: Any,
        *,
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> None:
        self._number = next_number()
        self.owner = OWNER.get() if context is None else context.get(OWNER)
        super().__init__(coro, loop=loop, context=context, **options)


class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose time advances only when nothing is ready, directly to the next timer.

    Each callback needs the admission of its process. A paused process keeps its callbacks for
    later, and a dead process drops them.
    """

    _asyncgens: Any
    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._at_this_moment = 0
        self.steps = 0
        self.max_steps = 20_000_000
        self._fatal: BaseException | None = None
        """The exception of a callback, which ends the simulation."""
        self.tasks: list[SimTask] = []
        """All tasks that were ever created. They live as long as the loop."""
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # its type in typeshed knows no further options

    def time(self) -> float:
        return self._now

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> SimTask:
        task = SimTask(coro, loop=self, **options)
        self.tasks.append(task)
        return task

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "handle" in context and self._fatal is None:
            self._fatal = context.get("exception") or SimulationError(context["message"])

    def generators(self) -> list[AsyncGeneratorType[Any, Any]]:
        """Return the asynchronous generators that were started and not finished."""
        return list(self._asyncgens)

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Schedule callbacks that were held back."""
        self._ready.extend(handles)

    def power_off(self) -> None:
        """Drop all callbacks, timers and tasks."""
        self._ready.clear()
        self._scheduled.clear()
        self.tasks.clear()

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heappop(scheduled)._scheduled = False
            if not scheduled:
                raise SimulationError(
                    "nothing can continue: no callback is ready and no timer is set. These tasks"
                    f" wait:\n{self._waiting()}"
                )
            if scheduled[0]._when > self._now:
                self._now = scheduled[0]._when
                self._at_this_moment = 0
        now = self._now
        while scheduled and scheduled[0]._when <= now:
            timer = heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        turns = len(ready)
        self.steps += turns
        self._at_this_moment += turns
        if self._at_this_moment > STEPS_AT_ONE_MOMENT or self.steps > self.max_steps:
            raise SimulationError(
                f"the code loops without end at {now:.3f} s; after {self.steps} steps these tasks"
                f" are alive:\n{self._waiting()}"
            )
        for _ in range(turns):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is None or owner.admits(handle):
                handle._run()
                if self._fatal is not None:
                    raise self._fatal

    def _waiting(self) -> str:
        lines = []
        for task in self.tasks:
            if task.done():
                continue
            frames = task.get_stack(limit=1)
            place = f"{frames[-1].f_code.co_qualname} line {frames[-1].f_lineno}" if frames else "?"
            owner = "world" if task.owner is None else task.owner.name
            lines.append(f"  {owner}: {place}")
        return "\n".join(lines[-200:])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is dropped when it is due."""

    def _process_events(self, event_list: object) -> None:
        """Do nothing: there are no events of sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: no other thread waits for the loop."""


def _forbidden(name: str) -> Callable[..., NoReturn]:
    def refuse(self: SimLoop, *args: Any, **options: Any) -> NoReturn:
        raise SimulationError(
            f"the event loop's {name} was called within a simulation, which has no threads,"
            " sockets, signals and subprocesses"
        )

    return refuse


for _name in (
    "run_in_executor",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "add_signal_handler",
    "remove_signal_handler",
    "create_connection",
    "create_server",
    "create_datagram_endpoint",
    "create_unix_connection",
    "create_unix_server",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "getaddrinfo",
    "getnameinfo",
    "sock_recv",
    "sock_recv_into",
    "sock_sendall",
    "sock_connect",
    "sock_accept",
    "sock_sendfile",
    "sendfile",
    "start_tls",
):
    setattr(SimLoop, _name, _forbidden(_name))
