"""Replacements in the interpreter while a simulation runs.

They replace random numbers and time, and refuse everything that would bring in the real ones.
"""

import asyncio
import gc
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import AsyncGeneratorType
from typing import Any, NoReturn

import anyio.to_thread
from anyio._backends import _asyncio as anyio_asyncio

from flowkit._user_code import threads as _threads
from flowkit_testing.simulation._loop import SimTask, SimulationError, next_number, restart_numbers


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _refusing(what: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **options: Any) -> NoReturn:
        raise SimulationError(f"{what} was used within a simulation: {instead}")

    return refuse


class _CountedScope(anyio_asyncio.CancelScope):
    """A cancel scope whose hash is a serial number.

    anyio keeps scopes in sets and cancels in the order of these sets.
    """

    __slots__ = ("_number",)

    def __init__(self, deadline: float = float("inf"), shield: bool = False) -> None:
        self._number = next_number()
        super().__init__(deadline, shield)

    def __hash__(self) -> int:
        return self._number


class Threads:
    """A replacement of worker threads that calls their functions in the event loop.

    There is a suspension before and after each call. A function's sleeps happen after it has
    returned.
    """

    def __init__(self) -> None:
        self._slept: float | None = None

    async def run_sync(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        self._slept = 0.0
        try:
            result = function(*args)
        finally:
            slept, self._slept = self._slept, None
        await asyncio.sleep(slept)
        return result

    def sleep(self, seconds: float) -> None:
        if self._slept is None:
            raise SimulationError(
                "time.sleep was called in a coroutine within a simulation, where it would stop the"
                " whole cluster: await ctx.clock.sleep() or anyio.sleep() instead"
            )
        self._slept += seconds


class Clockwork:
    """The clock behind ``time.time`` and its like: the time of the process that asks."""

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.now = now
        self.monotonic = monotonic

    def now_ns(self) -> int:
        return round(self.now() * 1e9)

    def monotonic_ns(self) -> int:
        return round(self.monotonic() * 1e9)


@contextmanager
def sealed(seed: int, clockwork: Clockwork) -> Iterator[None]:
    """Run without real time, randomness besides the seed, or anything outside the event loop."""
    chance = random.Random(f"chance of {seed}")
    threads = Threads()
    state = random.getstate()
    collecting = gc.isenabled()
    with ExitStack() as stack:

        def replace(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(_replaced(owner, name, value))

        replace(os, "urandom", chance.randbytes)
        replace(random, "_urandom", chance.randbytes)
        replace(os, "getpid", lambda: 1)
        replace(socket, "gethostname", lambda: "simulation")
        replace(time, "time", clockwork.now)
        replace(time, "time_ns", clockwork.now_ns)
        replace(time, "sleep", threads.sleep)
        for name in ("monotonic", "perf_counter"):
            replace(time, name, clockwork.monotonic)
            replace(time, f"{name}_ns", clockwork.monotonic_ns)
        replace(anyio.to_thread, "run_sync", threads.run_sync)
        replace(_threads, "in_thread", threads.run_sync)
        replace(anyio_asyncio, "CancelScope", _CountedScope)
        replace(
            threading.Thread,
            "start",
            _refusing("a thread", "everything runs in the one event loop"),
        )
        replace(
            socket.socket,
            "__init__",
            _refusing("a socket", "give your handlers a double of what they connect to"),
        )
        replace(
            subprocess.Popen,
            "__init__",
            _refusing("a subprocess", "give your handlers a double of the program"),
        )
        random.seed(f"random of {seed}")
        restart_numbers()
        # Its times depend on memory usage, and the objects that it collects run code.
        gc.disable()
        try:
            yield
        finally:
            random.setstate(state)
            if collecting:
                gc.enable()


@contextmanager
def unlogged() -> Iterator[None]:
    """Suppress logging.

    A simulation causes so many errors on purpose that formatting them would take most of its time.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and hooks about errors of objects that are being torn down."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        with unlogged(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook


def take_apart(tasks: Sequence[SimTask]) -> None:
    """Close the coroutines of tasks that never ended, and ignore their errors.

    Nothing that they could reach is alive.
    """
    states: MutableMapping[Any, Any] = getattr(anyio_asyncio, "_task_states", {})
    for task in tasks:
        # Its value refers to its key, so it would never be freed.
        states.pop(task, None)
        if task.done():
            continue
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio has no public name for it
        coroutine: Any = task.get_coro()
        for _ in range(100):
            with suppress(BaseException):  # it tries to clean up
                coroutine.close()
            if getattr(coroutine, "cr_frame", None) is None:
                break


def close_awaited(generators: Iterable[AsyncGeneratorType[Any, Any]]) -> None:
    """Close the awaitables of asynchronous generators.

    Before Python 3.13, closing the coroutine of a task does not reach them.
    """
    for generator in generators:
        awaited: Any = generator.ag_await
        with suppress(BaseException):
            awaited.close()
