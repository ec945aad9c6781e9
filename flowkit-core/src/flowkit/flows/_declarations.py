"""Checks of functions that are declared as flows."""

from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

from flowkit._flow_building.places import defined_at, with_place


def check_function(function: Any) -> None:
    """Check that a flow is a plain function.

    Raises:
        TypeError: it is not.
    """
    if isinstance(function, type) or not callable(function):
        raise wrong_flow(function, "is not a function; write a flow as def name(...): ...")
    if iscoroutinefunction(function) or isasyncgenfunction(function):
        raise wrong_flow(
            function,
            "is an async function; a graph is described without awaiting, so write it with def",
        )
    if isgeneratorfunction(function):
        raise wrong_flow(function, "is a generator; a flow makes nodes and does not yield")


def wrong_flow(function: Any, fault: str) -> TypeError:
    """Return an error that names the function with its file and line."""
    name = getattr(function, "__name__", repr(function)[:200])
    return TypeError(with_place(f"@flow: {name} {fault}", defined_at(function)))
