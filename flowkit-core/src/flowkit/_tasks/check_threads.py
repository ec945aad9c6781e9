"""Threads for checks of graphs and values that take long."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from flowkit._user_code.containment import undo_cancellation
from flowkit.graph._schema_checks import takes_long, value_faults

MOST_THREADS = 2
"""Most checks in threads at a time. They share the interpreter with the event loop, so more would
only slow it down.
"""
T = TypeVar("T")


class CheckThreads:
    """Threads of a client or coordinator for checks that take long."""

    def __init__(self) -> None:
        self._free = anyio.Semaphore(MOST_THREADS)

    async def run(self, check: Callable[[], T]) -> T:
        """Return what a check returns. A check whose caller is cancelled runs to its end."""
        # Code of the user that ran before may have cancelled this task.
        await undo_cancellation()
        async with self._free:
            return await anyio.to_thread.run_sync(check, abandon_on_cancel=True)

    async def value_faults(self, schema: Mapping[str, Any], value: Any, name: str) -> list[str]:
        """Return what is wrong with a value by a valid schema. Nothing may change it meanwhile."""
        if not takes_long(schema, value):
            return value_faults(schema, value, name)
        return await self.run(lambda: value_faults(schema, value, name))
