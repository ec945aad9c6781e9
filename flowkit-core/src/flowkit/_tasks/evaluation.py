"""Bounded evaluation: at once with a small budget, or in a thread with a large one."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from flowkit._expressions import Budget, BudgetExceeded
from flowkit.graph._conditions import MAX_MEMORY, MAX_STEPS

STEPS_AT_ONCE, MEMORY_AT_ONCE = 10_000, 1_000_000
STEPS_A_TURN = 2_000
"""Steps in one turn of the event loop, after which no further evaluation begins in that turn."""
MOST_THREADS = 2
"""Most evaluations in threads at a time. They share the interpreter with the event loop, so more
would only slow it down.
"""

T = TypeVar("T")
Evaluate = Callable[[Budget, bool], T]
"""Evaluation with a budget. True means that the event loop waits for it."""


class _Abandoned(BaseException):
    """End of an evaluation in a thread whose caller was cancelled."""


class Evaluations:
    """Evaluations of a coordinator or worker. They share the turns of its event loop, and a few
    threads.
    """

    def __init__(self) -> None:
        self._steps = 0
        """Steps used in the current turn."""
        self._threads = anyio.Semaphore(MOST_THREADS)

    async def bounded(self, evaluate: Evaluate[T]) -> T:
        """Return the value of an evaluation. It is repeated in a thread if it exceeds the small
        budget.

        Raises:
            BudgetExceeded: it exceeds the large budget, too.
        """
        while self._steps > STEPS_A_TURN:
            await anyio.lowlevel.checkpoint()
        if not self._steps:
            asyncio.get_running_loop().call_soon(self._end_turn)
        budget = Budget(STEPS_AT_ONCE, MEMORY_AT_ONCE)
        try:
            return evaluate(budget, True)
        except BudgetExceeded:
            pass
        finally:
            self._steps += 1 + budget.used
        return await self.in_thread(evaluate)

    async def in_thread(self, evaluate: Evaluate[T]) -> T:
        """Return the value of an evaluation in a thread. A cancelled evaluation ends soon.

        Raises:
            BudgetExceeded: it exceeds the large budget.
        """
        abandoned = False

        def pause() -> None:
            if abandoned:
                raise _Abandoned
            time.sleep(0)

        def run() -> T:
            return evaluate(Budget(MAX_STEPS, MAX_MEMORY, pause=pause), False)

        async with self._threads:
            try:
                return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
            finally:
                abandoned = True

    def _end_turn(self) -> None:
        self._steps = 0
