"""Errors of Python about values that are known only while a task runs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from flowkit._flow_building.places import flow_error, raising_place
from flowkit._flow_building.texts import shown
from flowkit.errors import GraphError

_NAMES = re.compile(r"\b(?:Value|NodeRef)\b(?!\.)")
MAX_TEXT = 300


@contextmanager
def early_uses() -> Iterator[None]:
    """Turn errors of Python and of libraries about a value of the flow into errors that say what to
    use. Other errors of users pass through.

    Raises:
        GraphError: a function was called that needs the value itself. The message names the line.
    """
    try:
        yield
    except GraphError:
        raise
    except RecursionError as error:
        raise flow_error(
            "a value contains itself or is nested too deeply, or the flow calls itself",
            raising_place(error),
        ) from None
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        text = " ".join(str(error).split())
        if shown(text) == text and not _NAMES.search(text):
            raise
        raise flow_error(
            f"{type(error).__name__}: {text[:MAX_TEXT]}; a value of the flow is known only while"
            " the task runs: give it to a handler, or put it into a text with f'{value}'",
            raising_place(error),
        ) from error
