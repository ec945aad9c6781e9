"""Flows with a mistake, each with a part of its error."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from flowkit import GraphError, flow


class Mistakes:
    """Table of flows with a mistake in the line that ends with ``# here``."""

    def __init__(self) -> None:
        self.table: dict[str, tuple[Callable[..., Any], str]] = {}

    def __call__(self, error: str) -> Callable[[Callable[..., Any]], None]:
        """Add a flow and a part of its error."""

        def add(function: Callable[..., Any]) -> None:
            self.table[function.__name__.replace("_", " ")] = (function, error)

        return add


def check_mistake(function: Callable[..., Any], error: str) -> None:
    """Check the text and the line of the error of a flow."""
    with pytest.raises(GraphError) as caught:
        flow(function).build_graph()
    assert error in str(caught.value)
    file = inspect.getsourcefile(function)
    place = f"({file}, line {line_of(function)})"
    assert [fault for fault in caught.value.faults if not fault.message.endswith(place)] == []
    assert str(caught.value).count(f"({file}, line ") == len(caught.value.faults)


def line_of(function: Callable[..., Any]) -> int:
    """Return the number of the line that ends with ``# here``."""
    lines, start = inspect.getsourcelines(function)
    return start + next(n for n, line in enumerate(lines) if line.rstrip().endswith("# here"))
