"""Checks of how handlers are declared, made where the user writes the declaration."""

import inspect
from collections.abc import Callable
from typing import Any

from flowkit.errors import ConfigError

ASYNC_METHODS = {"init": 1, "load_input": 2, "process_batch": 2, "finalize": 1}
"""The methods of a handler that are awaited, with the number of arguments each is called with."""


def wrong_declaration(name: str, fault: str, function: Any) -> ConfigError:
    """Return the error of a declaration that cannot work; it names the file and the line of ``function``."""
    return ConfigError(f"{name} cannot be a handler: {fault}{place_of(function)}")


def place_of(function: Any) -> str:
    """Return where a function or class is written, as ``" (file.py, line 3)"``; nothing where that is not known."""
    if isinstance(function, type):
        methods = [value for value in vars(function).values() if inspect.isfunction(value)]
        function = methods[0] if methods else function
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""


def check_methods(owner: type) -> None:
    """Check the methods that a subclass of Handler defines.

    Raises:
        ConfigError: one is not written as it is called.
    """
    for method, count in ASYNC_METHODS.items():
        written = inspect.unwrap(vars(owner)[method]) if callable(vars(owner).get(method)) else None
        if not inspect.isfunction(written):
            continue
        if inspect.isasyncgenfunction(written):
            raise wrong_declaration(owner.__name__, f"{method} yields; let it return a value", written)
        if not inspect.iscoroutinefunction(written):
            raise wrong_declaration(owner.__name__, f"{method} is awaited; write it with 'async def'", written)
        _check_arguments(owner, method, written, count)
    classify = vars(owner).get("classify_error")
    if inspect.iscoroutinefunction(classify):
        raise wrong_declaration(owner.__name__, "classify_error is not awaited; write it with 'def'", classify)


def _check_arguments(owner: type, method: str, written: Callable[..., Any], count: int) -> None:
    try:
        inspect.signature(written).bind(*range(count + 1))
    except TypeError:
        wanted = {"init": "run_info", "load_input": "input_ref, input_inline", "process_batch": "batch, ctx", "finalize": "ctx"}[method]
        raise wrong_declaration(owner.__name__, f"{method} is called with ({wanted}) and does not take that", written) from None
