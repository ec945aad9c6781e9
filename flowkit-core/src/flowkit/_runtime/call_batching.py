"""Calls that are made at the same time, made as one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from flowkit.errors import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

MOST_AT_ONCE = 500


class Gathered(Generic[T, R]):
    """Whatever is asked for while a call is on its way goes together in the next one.

    A single caller is served at once and pays nothing. If a common call fails, each of its items is
    tried by itself, so that nobody suffers from another's fault: the call must be harmless to
    repeat. If the store is out of reach, all of them are told so at once.
    """

    def __init__(self, call: Callable[[list[T]], Awaitable[Sequence[R]]]) -> None:
        """``call`` takes items and returns an answer for each."""
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
                # Held, as the event loop alone would let it be collected.
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
            # Where the store is out of reach nobody is at fault, and each alone would wait as long
            # again.
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
