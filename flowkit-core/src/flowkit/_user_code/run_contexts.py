"""Context variables of a run, which its coroutine and its calls in threads share.

In Python, only one thread at a time can enter a context. So the coroutine lends its context to a
call while it waits for it.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, TypeVar

from flowkit._user_code.containment import mark_foreign

T = TypeVar("T")


class Loan:
    """Context that a call in a thread uses."""

    __slots__ = ("_context", "returned")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.returned = False

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the thread."""
        try:
            return self._context.run(function, *args)
        finally:
            self.returned = True


class _RunContext:
    """Context of a coroutine that runs in :func:`in_context`."""

    __slots__ = ("_context", "_loan")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loan: Loan | None = None

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the event loop.

        If an abandoned call still has the context, use a copy of it from then on.
        """
        if self._loan is not None and not self._loan.returned:
            self._context = self._context.copy()
        self._loan = None
        return self._context.run(function, *args)

    def lend(self) -> Loan:
        self._loan = Loan(self._context)
        return self._loan


_contexts: dict[asyncio.Task[Any], _RunContext] = {}
"""Contexts of the tasks that are in :func:`in_context`."""


@types.coroutine
def in_context(coroutine: Coroutine[Any, Any, T], context: Context) -> Generator[Any, Any, T]:
    """Await foreign code in a context of its own.

    The context variables that it sets are not visible outside.
    """
    task = asyncio.current_task()
    assert task is not None
    own = _contexts[task] = _RunContext(context)
    own.run(mark_foreign)
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    try:
        while True:
            try:
                waits_for = own.run(step, value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                step, value = coroutine.send, (yield waits_for)
            except GeneratorExit:
                own.run(coroutine.close)
                raise
            except BaseException as error:
                step, value = coroutine.throw, error
    finally:
        del _contexts[task]


def lend_context() -> Loan:
    """Return the context for a call in a thread.

    The call must not begin before the current task waits for it. The context is that of the run. In
    a task that is not in :func:`in_context`, it is a copy of the current one.
    """
    task = asyncio.current_task()
    own = None if task is None else _contexts.get(task)
    return Loan(copy_context()) if own is None else own.lend()
