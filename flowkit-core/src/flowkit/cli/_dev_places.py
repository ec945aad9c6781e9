"""Places in the user's code, as ``flowkit dev`` prints them."""

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from flowkit._user_code.failure_logs import is_users

_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


@dataclass(frozen=True, slots=True)
class Place:
    """A line that is being executed, or has raised an error."""

    filename: str
    line: int
    function: str

    def __str__(self) -> str:
        path = Path(self.filename)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        inside = "" if self.function == "<module>" else f", in {self.function}"
        return f"{shown}, line {self.line}{inside}"


def frame_in(line: str) -> Place | None:
    """Return the place in a line that :mod:`faulthandler` has written, or None."""
    found = _FRAME.fullmatch(line)
    return None if found is None else Place(found[1], int(found[2]), found[3])


def users_place(stack: Sequence[Place]) -> Place | None:
    """Return the first place in the user's code. The stack begins with the innermost call."""
    return next((place for place in stack if is_users(place.filename)), None)


def place_of_error(raised_at: TracebackType | None) -> Place | None:
    """Return the innermost place of a traceback that is in the user's code."""
    frames = traceback.extract_tb(raised_at)
    return users_place(
        [Place(frame.filename, frame.lineno or 0, frame.name) for frame in reversed(frames)]
    )
