"""Containment of foreign code, so that it cannot end the task that calls it.

Foreign code is that of handlers, functions, plugins and adapters. It may raise an error that is not
an ``Exception`` (a panic of native code, ``SystemExit``, ``GeneratorExit``), cancel the task in
which it runs, or pass on the cancellation of an awaitable. Each of these would end the caller's
task, or stop the event loop. The functions here turn them into :class:`Escaped`, which is an
ordinary exception.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from flowkit._text.redaction import (
    MAX_ERROR_CHARS,
    encodable,
    redacted,
    redacted_start,
    shortened,
    writable,
)

P = ParamSpec("P")
T = TypeVar("T")

NO_TEXT = "(the error has no text: writing it failed)"


MOST_OF_A_TRACEBACK = 32_000
"""Length of a logged traceback: most of its beginning and some of its end."""
_END_OF_A_TRACEBACK = 8_000
_MOST_REDACTED = 1_000_000
"""Length of a traceback whose end is logged. It is redacted whole, because a secret may be cut."""


class Unreadable(Exception):
    """Replacement of an error whose type cannot be read.

    Reading its class, its name or its traceback runs code that raises.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Never(Exception):
    """Type that is compared with the types of errors, which may run code of a metaclass."""


def readable(error: BaseException) -> BaseException:
    """Return an error, or an :class:`Unreadable` with its name, text and traceback."""
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
    """Foreign code raised ``error``, which is not an ``Exception``."""

    def __init__(self, error: BaseException) -> None:
        self.error = readable(error)
        super().__init__(error_text(error))


class Titled(Escaped):
    """Foreign code raised ``error``, of any type. ``title`` is the name of the code in errors."""

    def __init__(self, error: BaseException, title: str) -> None:
        super().__init__(error)
        self.title = title
        self.args = (f"{title}: {message(error)}",)


def origin(error: BaseException) -> BaseException:
    """Return the error that foreign code raised."""
    return error.error if isinstance(error := readable(error), Escaped) else error


def message(error: BaseException, *, most: int = MAX_ERROR_CHARS) -> str:
    """Return the text of any error, without secrets.

    If the ``__str__`` of the error raises, return a text that says so.
    """
    try:
        return writable(redacted_start(f"{error}", most), most=most)
    except BaseException:
        return NO_TEXT


def error_text(error: BaseException, *, most: int = MAX_ERROR_CHARS) -> str:
    """Return the type and the text of any error, such as ``KeyError: 'id'``.

    If the text is empty, return the type alone.
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
    error = origin(error)
    return _formatted(error, error.__traceback__) or error_text(error)


def bounded_traceback(error: BaseException, frames: TracebackType | None) -> str:
    """Return the traceback of an error, with these frames, as text that every log can write."""
    return _writable(_formatted(error, frames), error)


def _writable(text: str | None, error: BaseException) -> str:
    return encodable(_shortened(text or error_text(error)))


def _formatted(error: BaseException, frames: TracebackType | None) -> str | None:
    """Return the traceback of an error, or None if an error in its chain cannot be read."""
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        return None


class Unwritable(Exception):
    """Replacement of an error whose traceback cannot be logged. Its text is a safe form of it."""


def loggable(error: BaseException | None) -> BaseException | None:
    """Return the error to log with its traceback.

    This is the same error, or an ``Unwritable`` if the traceback is long or cannot be written. A
    handler of the logging module would fail to write lone surrogates and errors that cannot be
    read, and print its own traceback instead of the line.
    """
    if error is None:
        return None
    error = origin(error)
    text = _formatted(error, error.__traceback__)
    shown = _writable(text, error)
    return error if shown == text else Unwritable(f"\n{shown}")


def _shortened(text: str) -> str:
    if len(text) <= MOST_OF_A_TRACEBACK:
        return text
    begin = redacted_start(text, MOST_OF_A_TRACEBACK - _END_OF_A_TRACEBACK)
    end = redacted(text)[-_END_OF_A_TRACEBACK:] if len(text) <= _MOST_REDACTED else ""
    return f"{begin}\n… {len(text) - len(begin) - len(end)} characters are left out …\n{end}"


def contained(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a foreign function.

    Raises:
        Escaped: it raised an error that is not an ``Exception``. An ``Exception`` passes
            unchanged.
        Unreadable: it raised an error of a type that cannot be read.
    """
    task = _current_task()
    asked, pending = 0 if task is None else task.cancelling(), getattr(task, _PENDING, False)
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
        while task is not None and task.cancelling() > asked:
            task.uncancel()
            _cancelled.add(task)
        if task is not None and getattr(task, _PENDING, False) and not pending:
            _cancelled.add(task)
    raise raised  # here, where it is not chained to the error that cannot be read


_PENDING = "_must_cancel"
"""Attribute of a task: whether the next await raises a cancellation. asyncio has no public name."""

_cancelled: "WeakSet[asyncio.Task[Any]]" = WeakSet()
"""Tasks that a foreign function cancelled while it ran in them."""


async def undo_cancellation(*, postpone: bool = False) -> None:
    """Undo the cancellation of the current task by the foreign functions that it called.

    No later await raises it then. A cancellation by the task's owner that arrives at the same
    moment is raised here. With ``postpone`` the next await raises it: the caller holds data that
    must not be lost.
    """
    if not _cancelled:
        return
    task = asyncio.current_task()
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
    """Call a function that calls foreign ones, and undo their cancellation of the current task."""
    try:
        return function(*args, **kwargs)
    finally:
        await undo_cancellation()


def is_cancelled() -> bool:
    """Return whether the current task itself is being cancelled, and not an awaitable of it."""
    task = _current_task()
    return task is not None and task.cancelling() > 0


async def awaited(awaitable: Awaitable[T], *, ending: Callable[[], bool] = is_cancelled) -> T:
    """Await foreign code.

    ``CancelledError`` passes while ``ending`` returns True: the owner of the caller's task cancels
    it. At any other time the code has cancelled itself, or passes on the cancellation of an
    awaitable.

    Raises:
        Escaped: it raised an error that is not an ``Exception``, or cancelled itself. An
            ``Exception`` passes unchanged.
        Unreadable: it raised an error of a type that cannot be read.
    """
    task = asyncio.current_task()
    assert task is not None
    asked, pending = task.cancelling(), getattr(task, _PENDING, False)
    raised: BaseException | None = None
    try:
        result = await awaitable
    except Exception as error:
        if (raised := readable(error)) is error:
            await _take_back(task, asked, pending, ending)
            raise
    except BaseException as error:
        if _current_task() is not task or (
            issubclass(type(error), asyncio.CancelledError) and ending()
        ):
            raise  # the coroutine is closed and not run, or its owner cancels it
        raised = Escaped(error)
        if raised.error is error:
            await _take_back(task, asked, pending, ending)
            raise raised from error
    if raised is not None:  # here, where it is not chained to the error that cannot be read
        await _take_back(task, asked, pending, ending)
        raise raised
    if task.cancelling() == asked and getattr(task, _PENDING, False) == pending:
        return result  # the code cancelled nothing
    if await _take_back(task, asked, pending, ending):
        raise Escaped(asyncio.CancelledError("the code cancelled its own task"))
    return result


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def _take_back(
    task: "asyncio.Task[Any]", asked: int, pending: bool, ending: Callable[[], bool]
) -> bool:
    """Undo a cancellation by foreign code, before which ``asked`` and ``pending`` were read.

    Return whether it was still pending, unless the code undid it itself.
    """
    if ending():
        return False
    undone = task.cancelling() <= asked
    # Before Python 3.13, a cancellation that uncancel() has undone is delivered all the same.
    if undone and (pending or not getattr(task, _PENDING, False)):
        return False
    delivered = await take_back(ending)
    while task.cancelling() > asked:
        task.uncancel()
    return delivered and not undone


async def take_back(ending: Callable[[], bool]) -> bool:
    """Receive a pending cancellation by a foreign function. Return whether there was one."""
    try:
        await asyncio.sleep(0)  # what is pending is delivered here
    except asyncio.CancelledError:
        if ending():
            raise
        return True
    return False
