"""Places in the code of users."""

import sys
from pathlib import Path
from types import FrameType

from flowkit.errors import Fault, GraphError

_PACKAGE = str(Path(__file__).parents[1])


def calling_place() -> str:
    """Return the file and line of the innermost call that is not in FlowKit."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def defined_at(function: object) -> str:
    """Return the file and line of a function, or ``""`` if they are not known."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f"{code.co_filename}, line {code.co_firstlineno}"


def flow_error(message: str, place: str | None = None) -> GraphError:
    """Return the error of a flow that cannot be built.

    It names ``place``, or else the line that is being run.
    """
    return GraphError([Fault(None, with_place(message, place or calling_place()))])


def with_place(message: str, place: str) -> str:
    """Return a sentence with the place that it is about."""
    return f"{message} ({place})" if place else message
