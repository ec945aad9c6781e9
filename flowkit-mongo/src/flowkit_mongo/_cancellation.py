"""A wait of PyMongo that a cancellation can leave without the lock that it holds.

PyMongo waits for a server on a condition, with ``asyncio.wait_for``. Before Python 3.12 that runs
the wait in a task of its own. A cancellation that comes while this task acquires the lock again,
after its time limit, abandons the task: the task gets the lock later, and nothing releases it. From
then on no operation finds a server, and the event loop cannot be closed, because the tasks that
wait for the lock cannot be cancelled.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

from pymongo import lock

T = TypeVar("T")


async def _wait_for(operation: Awaitable[T], timeout: float | None) -> T:
    """Wait as ``asyncio.wait_for`` does since Python 3.12: in the task of the caller."""
    async with asyncio.timeout(timeout):
        return await operation


def repair_waits() -> None:
    """Let PyMongo wait for servers in the task of the caller, also before Python 3.12. This
    concerns all that use PyMongo in this process.
    """
    if sys.version_info < (3, 12):
        vars(lock)["wait_for"] = _wait_for
