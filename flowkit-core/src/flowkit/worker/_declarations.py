"""Checks of handler declarations, made at the definition of a class or the start of a worker."""

import inspect
from collections.abc import Callable
from typing import Any

from flowkit.errors import ConfigError

ARGUMENTS = {
    "init": ("run_info",),
    "load_input": ("input_ref", "input_inline"),
    "iter_batches": ("loaded",),
    "process_batch": ("batch", "ctx"),
    "finalize": ("ctx",),
    "classify_error": ("exc",),
}
"""The methods of a handler and the arguments of their calls."""
AWAITED = ("init", "load_input", "process_batch", "finalize")


def wrong_declaration(name: str, fault: str, declared: Any) -> ConfigError:
    """Return the error for an invalid declaration. It names the file and line of ``declared``."""
    return ConfigError(f"{name} cannot be a handler: {fault}{place_of(declared)}")


def place_of(declared: Any) -> str:
    """Return the place of a function or class as ``" (file.py, line 3)"``, or ``""``."""
    if isinstance(declared, type):
        try:
            return (
                f" ({inspect.getsourcefile(declared)}, line {inspect.getsourcelines(declared)[1]})"
            )
        except (OSError, TypeError, SyntaxError):
            methods = [value for value in vars(declared).values() if inspect.isfunction(value)]
            declared = methods[0] if methods else declared
    code = getattr(inspect.unwrap(declared), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""


def check_methods(owner: type) -> None:
    """Check the methods of a subclass of Handler, including those inherited from other classes.

    Raises:
        ConfigError: a method does not match its call.
    """
    for method in ARGUMENTS:
        found = inspect.getattr_static(owner, method)
        written = inspect.unwrap(found) if callable(found) else None
        if not inspect.isfunction(written):
            continue
        if method in AWAITED and inspect.isasyncgenfunction(written):
            raise wrong_declaration(
                owner.__name__, f"{method} yields; let it return a value", written
            )
        if method in AWAITED and not inspect.iscoroutinefunction(written):
            raise wrong_declaration(
                owner.__name__, f"{method} is awaited; write it with 'async def'", written
            )
        if method == "classify_error" and inspect.iscoroutinefunction(written):
            raise wrong_declaration(
                owner.__name__, "classify_error is not awaited; write it with 'def'", written
            )
        _check_arguments(owner, method, written)


def _check_arguments(owner: type, method: str, written: Callable[..., Any]) -> None:
    wanted = ARGUMENTS[method]
    try:
        inspect.signature(written).bind("self", *wanted)
    except TypeError:
        fault = f"{method} is called with ({', '.join(wanted)}) and does not accept these arguments"
        raise wrong_declaration(owner.__name__, fault, written) from None


def check_made_without_arguments(make: Any, advice: str) -> None:
    """Check that a handler can be made by calling ``make()``.

    Raises:
        ConfigError: ``make`` needs arguments, or has abstract methods.
    """
    name = getattr(make, "__name__", type(make).__name__)
    if inspect.isabstract(make):
        raise wrong_declaration(
            name, f"it has abstract methods: {', '.join(sorted(make.__abstractmethods__))}", make
        )
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise wrong_declaration(
            name, f"each run makes its own by calling {name}(): {error}; {advice}", make
        ) from None
    except ValueError:
        return  # a class written in another language, without a signature
