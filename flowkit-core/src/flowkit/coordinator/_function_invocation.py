"""Invocation of a coordinator function: its arguments, its errors and its result."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from flowkit._engine import TaskEnding
from flowkit._engine.vars import VarsOp
from flowkit._json.values import NotJson, json_copy
from flowkit._user_code import threads as _threads
from flowkit._user_code.containment import (
    Titled,
    awaited,
    contained,
    error_text,
    is_cancelled,
    message,
    origin,
    undo_cancellation,
)
from flowkit._user_code.foreign_contexts import apart, in_context
from flowkit._user_code.reason_codes import default_classification
from flowkit.coordinator.functions import FunctionContext
from flowkit.errors import CorruptRecord, NodeFailure


@dataclass(frozen=True, slots=True)
class Returned:
    """Outcome of a call: the node's result, and the changes of vars and of the task to commit with
    its end.
    """

    result: Any
    ops: tuple[VarsOp, ...] = ()
    ending: TaskEnding | None = None


CoordinatorFunction = Callable[..., Any | Awaitable[Any]]


async def call_function(
    functions: Mapping[str, CoordinatorFunction],
    name: str,
    args: Mapping[str, Any],
    ctx: FunctionContext,
    *,
    plugin: str | None = None,
    ending: Callable[[], bool] = is_cancelled,
) -> Returned:
    """Call a coordinator function. Errors name the ``plugin`` that registered it.

    ``CancelledError`` passes while ``ending`` returns True: the caller cancels the call.

    Raises:
        NodeFailure: there is no such function, the arguments do not fit, or it failed. A
            ``NodeFailure`` that the function raised passes. Other errors get the reason code of
            their type, and the node's ``permanent_on`` decides whether they are permanent.
        Titled: the function of a plugin raised a ``NodeFailure``.
        CorruptRecord: a record that the function read cannot be decoded.
    """
    if name not in functions:
        _refuse(f"there is no coordinator function {name!r}")
    function = functions[name]
    title = f"coordinator function {name!r}{'' if plugin is None else f' of plugin {plugin!r}'}"
    try:
        inspect.signature(function).bind(ctx, **args)
    except (TypeError, ValueError) as error:
        _refuse(f"{title}: {message(error)}")
    try:
        result = await awaited(
            in_context(_call(function, ctx, args), copy_context()), ending=ending
        )
    except CorruptRecord:
        raise
    except NodeFailure as error:
        if plugin is None:
            raise
        raise Titled(error, title) from error
    except Exception as error:
        cause = origin(error)
        raise NodeFailure(
            f"{title} raised {error_text(error)}", reason_code=default_classification(cause)[0]
        ) from cause
    # This too may run code of the function's author: a method of the result's class.
    try:
        return Returned(contained(apart, _as_json, title, result), ctx.ops, ctx.ending)
    finally:
        await undo_cancellation()


async def _call(
    function: CoordinatorFunction, ctx: FunctionContext, args: Mapping[str, Any]
) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    ):
        return await function(ctx, **args)
    result = await _threads.in_thread(partial(function, ctx, **args))
    return await result if inspect.isawaitable(result) else result


def _as_json(title: str, result: Any) -> Any:
    """Return a copy of the result as it will be read from the store."""
    if result is None:
        return None
    try:
        return json_copy(result, f"the result of {title}")
    except NotJson as error:
        raise NodeFailure(str(error), reason_code="bad_result", permanent=True) from None


def _refuse(message: str) -> NoReturn:
    raise NodeFailure(message, reason_code="bad_input", permanent=True)
