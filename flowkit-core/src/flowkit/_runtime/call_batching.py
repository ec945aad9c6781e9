"""Batching of calls that are made at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from flowkit.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

MOST_AT_ONCE = 500


class Gathered(Generic[T, R]):
    """Batch requests that arrive during a call into the next call.

    A single caller is served at once and has no extra cost. If a batched call fails, each of its
    items is tried separately, so that one item cannot fail the others: the call must be harmless to
    repeat. If the store is unavailable, all callers get that error at once.
    """

    def __init__(self, call: Callable[[list[T]], Awaitable[Sequence[R]]]) -> None:
        """Take ``call``, which takes items and returns an answer for each."""
        self._call = call
        self._busy = False
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        if self._busy:
            answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._waiting.append((item, answer))
            return await answer
        self._busy = True
        try:
            return (await self._call([item]))[0]
        finally:
            self._busy = False
            if self._waiting:
                self._busy = True
                # The reference keeps the task from being collected.
                self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                wanted = [(item, answer) for item, answer in now if not answer.done()]
                await self._serve(wanted)
        finally:
            self._busy = False
            for _, answer in self._waiting:
                answer.cancel()

    async def _serve(self, wanted: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            found = await self._call([item for item, _ in wanted])
        except Exception as error:
            # If the store is unavailable, no item is at fault, and each would wait as long again.
            if len(wanted) == 1 or isinstance(error, StoreUnavailable):
                for _, answer in wanted:
                    _settle(answer, error)
            else:
                for one in wanted:
                    await self._serve([one])
            return
        except asyncio.CancelledError:
            for _, answer in wanted:
                answer.cancel()
            raise
        for (_, answer), value in zip(wanted, found, strict=True):
            if not answer.done():
                answer.set_result(value)


def _settle(answer: "asyncio.Future[R]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
