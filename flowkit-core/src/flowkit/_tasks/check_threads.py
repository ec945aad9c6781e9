"""Threads for checks of graphs and values that take long."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread

from flowkit._user_code.containment import undo_cancellation
from flowkit.graph._params_schema import with_defaults
from flowkit.graph._schema_checks import takes_long, value_faults

MOST_THREADS = 2
"""Most checks in threads at a time. They share the interpreter with the event loop, so more would
only slow it down.
"""
T = TypeVar("T")


class TaskParams(NamedTuple):
    """Params of a task."""

    given: dict[str, Any]
    whole: dict[str, Any]
    """The same with the defaults of the schema of its graph."""

    @property
    def defaulted(self) -> tuple[str, ...]:
        """Names of the params that have defaults."""
        return tuple(name for name in self.whole if name not in self.given)


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

    async def params(
        self, schema: Mapping[str, Any] | None, given: dict[str, Any]
    ) -> tuple[TaskParams, list[str]]:
        """Return params with the defaults of a valid schema, and what is wrong with them by it."""
        if schema is None:
            return TaskParams(given, given), []
        whole = with_defaults(schema, given)
        return TaskParams(given, whole), await self.value_faults(schema, whole, "params")

    async def value_faults(self, schema: Mapping[str, Any], value: Any, name: str) -> list[str]:
        """Return what is wrong with a value by a valid schema. Nothing may change it meanwhile."""
        if not takes_long(schema, value):
            return value_faults(schema, value, name)
        return await self.run(lambda: value_faults(schema, value, name))
