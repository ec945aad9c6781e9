"""Threads for synchronous handlers and functions.

They are daemon threads: unlike in a thread of anyio, a function that never returns does not prevent
the process from ending.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

import anyio.to_thread

# Private, but without them anyio.from_thread works in anyio's own threads alone. These keep a
# process from ending.
from anyio._core._eventloop import claim_worker_thread, get_async_backend, threadlocals

from flowkit._user_code.containment import readable
from flowkit._user_code.foreign_contexts import lend_context

T = TypeVar("T")

IDLE_SEC = 10.0
"""Time after which an unused thread ends."""


class Calls:
    """Calls of one worker or run that are made in threads, including abandoned ones."""

    def __init__(self, outer: "Calls | None" = None) -> None:
        """``outer`` counts them, too."""
        self._outer = outer
        self._running: dict[object, str] = {}
        self._quiet: asyncio.Event | None = None
        """Set when no function runs; None while none waits for that."""

    def __enter__(self) -> Self:
        """Count the calls that are made from this context, and from copies of it."""
        _counted_in.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        # Not reset(): a run whose context an abandoned call keeps goes on in a copy of it.
        _counted_in.set(self._outer)

    @property
    def names(self) -> list[str]:
        """Return the names of the running functions, sorted."""
        return sorted(self._running.values())

    def begin(self, call: object, name: str) -> None:
        self._running[call] = name
        if self._outer is not None:
            self._outer.begin(call, name)

    def end(self, call: object) -> None:
        self._running.pop(call, None)
        if not self._running and self._quiet is not None:
            self._quiet.set()
            self._quiet = None
        if self._outer is not None:
            self._outer.end(call)

    async def wait_until_quiet(self) -> None:
        """Return when no function runs."""
        while self._running:
            self._quiet = self._quiet or asyncio.Event()
            await self._quiet.wait()


_counted_in: ContextVar[Calls | None] = ContextVar("flowkit_calls", default=None)


def counted() -> Calls:
    """Return a context manager that counts the calls made in it."""
    return Calls(_counted_in.get())


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread, in the context of the caller's run.

    A caller that is cancelled abandons the call. Calls count against anyio's limit of threads,
    which virtual clocks check to see whether real work is in progress. The function may use
    ``anyio.from_thread``.
    """
    async with anyio.to_thread.current_default_thread_limiter():
        with anyio.CancelScope() as scope:
            call = _Call(function, args, scope)
            # Not before this task waits: until then its context is in use.
            asyncio.get_running_loop().call_soon(call.begin)
            error = await call.ended
    if error is not None:
        # Not set as the future's exception: asyncio takes GeneratorExit and StopIteration for signs
        # of its own.
        raise error
    return call.result  # type: ignore[no-any-return]


class _Call:
    """Call that is handed to a thread."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], scope: anyio.CancelScope
    ) -> None:
        self._function, self._args, self._scope = function, args, scope
        self._context = lend_context()
        self._loop = asyncio.get_running_loop()
        self._backend = get_async_backend()
        self._calls = _counted_in.get()
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        self.result: Any = None
        if self._calls is not None:
            self._calls.begin(self, getattr(function, "__qualname__", repr(type(function))))

    def begin(self) -> None:
        """Hand the call to a thread, unless it was abandoned meanwhile."""
        if self.ended.done():
            self._drop(None)
            return
        try:
            thread = _thread()
        except RuntimeError as error:  # the system allows no more threads
            self._drop(error)
        else:
            thread.calls.put(self)

    def make(self) -> BaseException | None:
        """Call the function in the thread. Return the error that it raises."""
        with claim_worker_thread(self._backend, self._loop):
            threadlocals.current_cancel_scope = self._scope
            try:
                self.result = self._context.run(self._function, *self._args)
            except BaseException as error:
                return readable(error)
            finally:
                del threadlocals.current_cancel_scope
        return None

    def report(self, error: BaseException | None) -> None:
        """Send the outcome to the event loop, unless the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _drop(self, error: BaseException | None) -> None:
        self._context.returned = True
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._calls is not None:
            self._calls.end(self)
        if not self.ended.done():
            self.ended.set_result(error)


class _Thread(threading.Thread):
    """Thread that makes one call after the other."""

    def __init__(self) -> None:
        super().__init__(name="flowkit function", daemon=True)
        self.calls: SimpleQueue[_Call] = SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                call = self.calls.get(timeout=IDLE_SEC)
            except Empty:
                if self._leave():
                    return
                continue
            error = call.make()
            # Mark the thread idle before reporting, so that the next step of a generator gets the
            # same thread.
            with _lock:
                _idle.append(self)
            call.report(error)
            del call, error

    def _leave(self) -> bool:
        """Leave the idle threads, unless a call was handed to this one meanwhile."""
        with _lock:
            if self not in _idle:
                return False
            _idle.remove(self)
            return True


_idle: list[_Thread] = []
_lock = threading.Lock()


def _thread() -> _Thread:
    with _lock:
        if _idle:
            return _idle.pop()
    thread = _Thread()
    thread.start()
    return thread


def _forget_threads() -> None:
    """Reset the pool in a forked child, where its threads do not exist and its lock may be held."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
