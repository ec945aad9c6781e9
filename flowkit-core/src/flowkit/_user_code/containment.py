"""Containment of foreign code: handlers, functions, plugins and adapters cannot end the task that
calls them.

Foreign code may raise what is no ``Exception`` (a panic of native code, ``SystemExit``,
``GeneratorExit``), cancel the task it runs in, or pass on the cancellation of something that it
awaited. Each of these would end the caller's task, or stop the event loop. Here they become an
:class:`Escaped`, which is an ordinary exception.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, NamedTuple, ParamSpec, TypeVar
from weakref import WeakSet

from flowkit._text.redaction import MAX_ERROR_CHARS, encodable, redacted, shortened, writable

P = ParamSpec("P")
T = TypeVar("T")

NO_TEXT = "(the error has no text: writing it failed)"


MOST_OF_A_TRACEBACK = 32_000
"""Log at most this many characters of a traceback: most from its beginning, the rest from its
end.
"""
_END_OF_A_TRACEBACK = 8_000


class Unreadable(Exception):
    """Stands in for an error of a type that cannot be read: reading its class, its name or its
    traceback runs code that raises.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Never(Exception):
    """Is compared with the types of errors, which may run code of a metaclass."""


def readable(error: BaseException) -> BaseException:
    """Return an error, or an :class:`Unreadable` with its name, text and traceback if its type has
    code that keeps it from being read.
    """
    if _is_readable(error):
        return error
    kind = type.__dict__["__name__"].__get__(type(error))
    return Unreadable(kind, message(error)).with_traceback(
        BaseException.__dict__["__traceback__"].__get__(error)
    )


def _is_readable(error: BaseException) -> bool:
    kind = type(error)
    try:
        names = (kind.__name__, kind.__qualname__, kind.__module__)
        error.__traceback__, error.__cause__, error.__context__  # noqa: B018 - reading them may raise
        if (
            error.__class__ is not kind
            or kind == _Never
            or not all(isinstance(name, str) for name in names)
        ):
            return False
        return not isinstance(error, BaseExceptionGroup) or all(map(_is_readable, error.exceptions))
    except BaseException:
        return False


class Escaped(Exception):
    """Foreign code raised ``error``, which is no ``Exception``."""

    def __init__(self, error: BaseException) -> None:
        self.error = readable(error)
        super().__init__(error_text(error))


class Titled(Escaped):
    """Foreign code raised ``error``, of any type. ``title`` is what errors call the code."""

    def __init__(self, error: BaseException, title: str) -> None:
        super().__init__(error)
        self.title = title
        self.args = (f"{title}: {message(error)}",)


def origin(error: BaseException) -> BaseException:
    """Return what foreign code raised."""
    return error.error if isinstance(error := readable(error), Escaped) else error


def message(error: BaseException, *, most: int = MAX_ERROR_CHARS) -> str:
    """Return the text of any error, without secrets. An error whose ``__str__`` raises has a text
    that says so.
    """
    try:
        return writable(redacted(f"{error}"[:most]), most=most)
    except BaseException:
        return NO_TEXT


def error_text(error: BaseException, *, most: int = MAX_ERROR_CHARS) -> str:
    """Return the type and the text of any error, such as ``KeyError: 'id'``; the type alone if the
    text is empty.
    """
    error = readable(error)
    title = f"{error.title}: " if isinstance(error, Titled) else ""
    error = origin(error)
    text, kind = message(error, most=most), error_type(error)
    return f"{title}{kind}: {text}"[:most] if text else f"{title}{kind}"


def error_type(error: BaseException) -> str:
    """Return the name of the type of any error."""
    error = readable(error)
    return shortened(error.kind if isinstance(error, Unreadable) else type(error).__name__, 200)


def traceback_text(error: BaseException) -> str:
    """Return the traceback of any error as text."""
    return _formatted(origin(error)) or error_text(error)


def _formatted(error: BaseException) -> str | None:
    """Return the traceback of an error, or None if an error that it is chained to cannot be
    read.
    """
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return None


class Unwritable(Exception):
    """Stands in for an error whose traceback cannot be logged as it is, with the traceback in a
    form that can.
    """


def loggable(error: BaseException | None) -> BaseException | None:
    """Return the error to log with its traceback: the same, or an ``Unwritable`` if the traceback
    is long or cannot be written.

    A handler of the logging module would fail to write lone surrogates and errors that cannot be
    read, and print its own traceback instead of the line.
    """
    if error is None:
        return None
    error = origin(error)
    text = _formatted(error)
    shown = encodable(_shortened(text or error_text(error)))
    return error if shown == text else Unwritable(f"\n{shown}")


def _shortened(text: str) -> str:
    if len(text) <= MOST_OF_A_TRACEBACK:
        return text
    begin, end = text[: MOST_OF_A_TRACEBACK - _END_OF_A_TRACEBACK], text[-_END_OF_A_TRACEBACK:]
    return f"{begin}\n… {len(text) - MOST_OF_A_TRACEBACK} characters are left out …\n{end}"


def contained(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a foreign function.

    Raises:
        Escaped: it raised what is no ``Exception``. An ``Exception`` passes unchanged.
        Unreadable: it raised an error of a type that cannot be read.
    """
    task = _current_task()
    before = _cancellations(task)
    try:
        return function(*args, **kwargs)
    except Exception as error:
        if (raised := readable(error)) is error:
            raise
    except BaseException as error:
        raised = Escaped(error)
        if raised.error is error:
            raise raised from error
    finally:
        # It may have cancelled the task that calls it. The next await raises CancelledError all the
        # same, but as a foreign one.
        while task is not None and task.cancelling() > before.asked:
            task.uncancel()
            _cancelled.add(task)
        if task is not None and _is_pending(task) and not before.pending:
            _cancelled.add(task)
    raise raised  # here, where it is not chained to the error that cannot be read


_cancelled: "WeakSet[asyncio.Task[Any]]" = WeakSet()
"""Tasks that a foreign function cancelled while it was called in them."""


async def undo_cancellation(*, postpone: bool = False) -> None:
    """Receive the cancellation of the current task that the last foreign functions asked for, so
    that no later await raises it.

    A cancellation by the task's owner that arrives at the same moment is raised here. With
    ``postpone`` the next await raises it: the caller holds something that must not be lost.
    """
    task = _current_task()
    if task is None or task not in _cancelled:
        return
    _cancelled.discard(task)
    try:
        await take_back(is_cancelled)
    except asyncio.CancelledError:
        if not postpone:
            raise
        task.uncancel()
        task.cancel()


async def uncancelled(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that calls foreign ones, and undo the cancellation of the current task that
    these asked for.
    """
    try:
        return function(*args, **kwargs)
    finally:
        await undo_cancellation()


def is_cancelled() -> bool:
    """Return whether the current task itself is being cancelled, and not something that it
    awaits.
    """
    task = _current_task()
    return task is not None and task.cancelling() > 0


async def awaited(awaitable: Awaitable[T], *, ending: Callable[[], bool] = is_cancelled) -> T:
    """Await foreign code.

    ``CancelledError`` passes while ``ending`` returns True: the caller's task is being cancelled by
    its owner. At any other time the code has cancelled itself, or passes on the cancellation of
    something it awaited.

    Raises:
        Escaped: it raised what is no ``Exception``, or was cancelled by itself. An ``Exception``
            passes unchanged.
        Unreadable: it raised an error of a type that cannot be read.
    """
    task = _current_task()
    before = _cancellations(task)
    raised: BaseException | None = None
    try:
        result = await awaitable
    except Exception as error:
        if (raised := readable(error)) is error:
            await _take_back(task, before, ending)
            raise
    except BaseException as error:
        if _current_task() is not task or (
            issubclass(type(error), asyncio.CancelledError) and ending()
        ):
            raise  # the coroutine is closed and not run, or its owner cancels it
        raised = Escaped(error)
        if raised.error is error:
            await _take_back(task, before, ending)
            raise raised from error
    if raised is not None:  # here, where it is not chained to the error that cannot be read
        await _take_back(task, before, ending)
        raise raised
    if await _take_back(task, before, ending):
        raise Escaped(asyncio.CancelledError("the code cancelled its own task"))
    return result


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class _Before(NamedTuple):
    """The cancellations of a task when foreign code begins."""

    asked: int
    pending: bool


def _cancellations(task: "asyncio.Task[Any] | None") -> _Before:
    return _Before(0, False) if task is None else _Before(task.cancelling(), _is_pending(task))


def _is_pending(task: "asyncio.Task[Any]") -> bool:
    """Return whether a cancellation is to be delivered at the next await. asyncio has no public
    name for this.
    """
    return getattr(task, "_must_cancel", False)


async def _take_back(
    task: "asyncio.Task[Any] | None", before: _Before, ending: Callable[[], bool]
) -> bool:
    """Undo a cancellation that foreign code asked for. Return whether it was still to be delivered,
    unless that code undid it.
    """
    if task is None or ending():
        return False
    undone = task.cancelling() <= before.asked
    # Before Python 3.13, a cancellation that uncancel() has undone is delivered all the same.
    if undone and (before.pending or not _is_pending(task)):
        return False
    delivered = await take_back(ending)
    while task.cancelling() > before.asked:
        task.uncancel()
    return delivered and not undone


async def take_back(ending: Callable[[], bool]) -> bool:
    """Receive the cancellation that a foreign function asked for, if it did. Return whether it
    did.
    """
    try:
        await asyncio.sleep(0)  # what is pending is delivered here
    except asyncio.CancelledError:
        if ending():
            raise
        return True
    return False


# ---------------------------------------------------------------- tasks of foreign code

_foreign: ContextVar[bool] = ContextVar("flowkit_foreign", default=False)
_EXITS = (SystemExit, KeyboardInterrupt)


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a foreign function in a context of its own: the context variables that it sets are not
    seen outside.

    The tasks that it makes are those of foreign code.
    """
    context = copy_context()
    context.run(mark_foreign)
    return context.run(function, *args, **kwargs)


def mark_foreign() -> None:
    """Take note that tasks which are made from the current context are those of foreign code."""
    _foreign.set(True)


def is_foreign(context: Context | None) -> bool:
    """Return whether a context is one of foreign code."""
    return context is not None and context.get(_foreign, False)


def contain_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the tasks of foreign code contained as well.

    A task that ends with ``SystemExit`` or ``KeyboardInterrupt`` stops the event loop, which
    nothing outside of the task can prevent: where a handler calls ``sys.exit()`` within
    ``asyncio.gather`` or ``wait_for``, the process would end. Other tasks are left alone.
    """
    make = loop.get_task_factory()
    if not isinstance(make, _Factory):
        loop.set_task_factory(_Factory(make))


class _Factory:
    """Makes tasks, those of foreign code with a coroutine that cannot stop the event loop."""

    def __init__(self, make: Any) -> None:
        self._make = make or _make_task

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        return self._make(
            loop, _WithoutExits(coroutine) if _foreign.get() else coroutine, **options
        )


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> "asyncio.Task[Any]":
    return asyncio.Task(coroutine, loop=loop, **options)


class _WithoutExits(Coroutine[Any, Any, Any]):
    """A coroutine wrapper that raises :class:`Escaped` instead of ``SystemExit`` or
    ``KeyboardInterrupt``.
    """

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
