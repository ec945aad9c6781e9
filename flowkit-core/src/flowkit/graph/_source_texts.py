"""Graphs as text."""

from typing import Any

from flowkit._json.documents import DocumentError, Syntax, read_document
from flowkit.errors import Fault, GraphError
from flowkit.graph._limits import GraphLimits, levels


def read_text(source: str | bytes, limits: GraphLimits, syntax: Syntax | None = None) -> Any:
    """Return the value of a document. Without ``syntax``, text that begins with ``{`` is JSON and
    any other is YAML.

    Raises:
        GraphError: the text is too large, nested too deeply, or not of its syntax.
    """
    try:
        return read_document(
            source, syntax=syntax, max_bytes=limits.max_bytes, max_levels=levels(limits)
        )
    except DocumentError as error:
        raise GraphError([Fault(None, str(error))]) from None
