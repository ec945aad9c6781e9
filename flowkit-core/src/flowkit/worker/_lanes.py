"""Lanes: batches of one run that are in process at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from types import TracebackType
from typing import Self

from flowkit._runtime.concurrency import within
from flowkit._user_code.containment import Escaped, awaited
from flowkit.protocols import Clock
from flowkit.worker._context import RunContext
from flowkit.worker._slots import Slot

Work = Callable[[RunContext], Awaitable[None]]


class Lanes:
    """Lanes of a run, each of which processes one batch at a time.

    Each lane has a context for the handler, whose batch is the one in process. A single lane works
    in the task of the run. More lanes have a task for each batch.

    Leaving the lanes waits for the batches in process. If the run is cut off, they are cancelled
    once, as the task of the run is.
    """

    def __init__(
        self, context: RunContext, count: int, *, slot: Slot, ending: Callable[[], bool]
    ) -> None:
        """``ending`` says whether the worker cancels the run."""
        self._context = context
        self._slot = slot
        self._is_single = count == 1
        self._free = (
            [context] if self._is_single else [context._for_lane() for _ in range(count)]  # noqa: SLF001
        )
        self._ending = ending
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None
        self._ended = asyncio.Event()
        self._is_waiting = False
        """Whether the run waits for the end of a batch, and does nothing else."""

    @property
    def busy(self) -> bool:
        """Whether a batch is in process."""
        return bool(self._tasks)

    async def start(self, work: Work) -> None:
        """Begin work as soon as a lane is free. A single lane ends it, too.

        Raises:
            Exception: the first error of any work. No more work is begun then.
        """
        if self._is_single:
            await work(self._free[0])
            return
        self._slot.work(self._context)
        while not self._free:
            await self._next_end()
        self.check()
        context = self._free.pop()
        task = asyncio.create_task(self._do(work, context), name="flowkit batch")
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, context))

    def check(self) -> None:
        """Raise the first error of any work."""
        if self._error is not None:
            raise self._error

    async def wait(self, seconds: float, clock: Clock) -> None:
        """Return when some work has ended, or when this time is over.

        Raises:
            Exception: the first error of any work.
        """
        if not self._tasks:
            await clock.sleep(seconds)
        elif seconds == inf:
            await self._next_end()
        else:
            await within(seconds, self._next_end, clock=clock)
        self.check()

    async def _next_end(self) -> None:
        if not self._ended.is_set():
            self._is_waiting = True
            self._slot.rest(self._context)  # the batches in process are at work
            try:
                await self._ended.wait()
            finally:
                self._is_waiting = False
        self._ended.clear()

    async def _do(self, work: Work, context: RunContext) -> None:
        try:
            context._keep_other_loggers()  # noqa: SLF001 - the worker's side of the context
            await awaited(work(context), ending=self._ending)
        except Exception as error:
            self._error = self._error or error

    def _end(self, context: RunContext, task: "asyncio.Task[None]") -> None:
        if task.cancelled():  # perhaps by code of the handler, before the work began
            self._error = self._error or Escaped(asyncio.CancelledError("a batch was cancelled"))
        self._tasks.discard(task)
        if self._is_waiting:
            self._slot.work(self._context)  # it goes on, so the run keeps its slot
        self._slot.rest(context)
        self._free.append(context)
        self._ended.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):
                await self._finish()
        finally:
            for task in self._tasks:
                task.cancel()
            await self._finish()
        if error is None:
            self.check()

    async def _finish(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
