"""Places in the code of users."""

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType

from flowkit._flow_building.texts import shown
from flowkit.errors import Fault, GraphError

_PACKAGE = str(Path(__file__).parents[1])
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def calling_place() -> str:
    """Return the file and line of the innermost call in the code of users."""
    return _innermost(walk_stack(sys._getframe(1)))  # noqa: SLF001


def raising_place(error: BaseException) -> str:
    """Return the file and line in the code of users at which an error was raised."""
    return _innermost(reversed(list(walk_tb(error.__traceback__))))


def _innermost(calls: Iterable[tuple[FrameType, int]]) -> str:
    """Return the file and line of the first call, from the innermost outwards, that is not in
    FlowKit, the standard library or, if possible, an installed package.
    """
    found = ""
    for frame, line in calls:
        file = frame.f_code.co_filename
        is_installed = "site-packages" in file
        if file.startswith((_PACKAGE, "<frozen ")):
            continue
        if file.startswith(_STANDARD_LIBRARY) and not is_installed:
            continue
        place = f"{file}, line {line}"
        if not is_installed:
            return place
        found = found or place
    return found


def defined_at(function: object) -> str:
    """Return the file and line of a function, or ``""`` if they are not known."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f"{code.co_filename}, line {code.co_firstlineno}"


def flow_error(message: str, place: str | None = None) -> GraphError:
    """Return the error of a flow that cannot be built.

    It names ``place``, or else the line that is being run.
    """
    return GraphError([Fault(None, with_place(shown(message), place or calling_place()))])


def with_place(message: str, place: str) -> str:
    """Return a sentence with the place that it is about."""
    return f"{message} ({place})" if place else message
