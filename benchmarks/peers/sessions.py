"""The methods that each system offers: one for each kind of workload."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

AT_ONCE = 200
"""Submissions at the same time, where a system has an asynchronous client."""


class Session(Protocol):
    """A system whose workers run. Each method returns when the last result has arrived."""

    async def chain(self, length: int) -> None:
        """Run steps one after the other."""

    async def fan(self, width: int) -> None:
        """Run steps side by side, and one step after all of them."""

    async def tasks(self, count: int) -> None:
        """Run tasks of one step that know nothing of each other."""

    async def stream(self, items: int) -> None:
        """Pass items through three stages. A stage need not wait until the one before has ended."""


async def in_batches(count: int, submit: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Submit tasks, many at a time, and return what identifies them."""
    found: list[Any] = []
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(count, first + AT_ONCE))
        found += await asyncio.gather(*(submit(number) for number in numbers))
    return found


@asynccontextmanager
async def command(*words: str | os.PathLike[str]) -> AsyncIterator[None]:
    """Run the command line of a project's worker, which is a module of this environment."""
    # Standard output is for the figures.
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *words, stdout=sys.stderr)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def do_nothing(*_: object) -> int:
    return 1


async def do_nothing_async(*_: object) -> int:
    return 1
