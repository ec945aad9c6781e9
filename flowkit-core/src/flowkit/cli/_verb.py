"""Verbs: the commands of the command line, its own and those of installed packages."""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from flowkit._text.redaction import printable, redacted
from flowkit._user_code.containment import contained, error_text

ENTRY_POINT_GROUP = "flowkit.verbs"


@dataclass(frozen=True, slots=True)
class Verb:
    """A command of the command line."""

    panel: str
    """Heading under which ``flowkit --help`` lists it."""
    words: str
    """Words to type after ``flowkit``."""
    run: Callable[..., Any]
    """Function with Typer's annotations. Its docstring is the help text."""
    group: str = ""
    """Help text of the group, if the verb has two words."""


def installed_verbs() -> list[Verb]:
    """Return the verbs of installed packages. One that cannot be imported causes a warning."""
    found: list[Verb] = []
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            verbs: Sequence[Verb] = contained(entry_point.load)
        except Exception as error:
            text = f"the verbs of {entry_point.value} cannot be imported: {error_text(error)}"
            typer.echo(printable(redacted(f"warning: {text}")), err=True)
        else:
            found += verbs
    return found
