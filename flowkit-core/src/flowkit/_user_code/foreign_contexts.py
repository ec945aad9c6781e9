"""Contexts of foreign code: its context variables, and the tasks that it creates.

A run has one context, which its coroutine and its calls in threads share. In Python, only one
thread at a time can enter a context. So the coroutine lends its context to a call while it waits
for it.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from flowkit._user_code.containment import Escaped

P = ParamSpec("P")
T = TypeVar("T")

_EXITS = (SystemExit, KeyboardInterrupt)
_foreign: ContextVar[bool] = ContextVar("flowkit_foreign", default=False)
"""Whether the tasks that are created from a context are those of foreign code."""


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a foreign function in a context of its own.

    The context variables that it sets are not visible outside. The tasks that it creates are marked
    as those of foreign code.
    """
    context = copy_context()
    context.run(_foreign.set, True)
    return context.run(function, *args, **kwargs)


def is_foreign(context: Context | None) -> bool:
    """Return whether a context belongs to foreign code."""
    return context is not None and context.get(_foreign, False)


# ---------------------------------------------------------------- contexts of runs


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

    __slots__ = ("context", "loan")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.loan: Loan | None = None

    def take_back(self) -> None:
        """End the loan. If an abandoned call still has the context, use a copy from then on."""
        if self.loan is not None and not self.loan.returned:
            self.context = self.context.copy()
        self.loan = None

    def lend(self) -> Loan:
        self.loan = Loan(self.context)
        return self.loan


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
    context.run(_foreign.set, True)
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    try:
        while True:
            if own.loan is not None:
                own.take_back()
            try:
                waits_for = own.context.run(step, value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                step, value = coroutine.send, (yield waits_for)
            except GeneratorExit:
                own.take_back()
                own.context.run(coroutine.close)
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


# ---------------------------------------------------------------- tasks of foreign code


def contain_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Contain the tasks that foreign code creates in this event loop.

    A task that ends with ``SystemExit`` or ``KeyboardInterrupt`` stops the event loop, and no code
    outside of the task can prevent that. A handler that calls ``sys.exit()`` within
    ``asyncio.gather`` or ``wait_for`` would end the process. Other tasks are not changed.
    """
    make = loop.get_task_factory()
    if not isinstance(make, _Factory):
        loop.set_task_factory(_Factory(make))


class _Factory:
    """Task factory that wraps coroutines of foreign code, so that they cannot stop the loop."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if _foreign.get():
            coroutine = _WithoutExits(coroutine)
        if self._make is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        return self._make(loop, coroutine, **options)


class _WithoutExits(Coroutine[Any, Any, Any]):
    """Coroutine that raises :class:`Escaped` instead of an exit of the process."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        except _EXITS as error:
            raise Escaped(error) from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._coroutine.throw(*error)
        except _EXITS as raised:
            raise Escaped(raised) from raised

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coroutine.__await__())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)
