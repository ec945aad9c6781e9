"""Graphs written as JSON or YAML."""

from typing import Any

from flowkit._json.documents import DocumentError, Syntax, read_document
from flowkit.errors import Fault, GraphError
from flowkit.graph._parser import GraphLimits, whole_levels


def read_text(source: str | bytes, limits: GraphLimits, syntax: Syntax | None = None) -> Any:
    """Parse a document and return its value.

    Without ``syntax``, text that begins with ``{`` is JSON and other text is YAML.

    Raises:
        GraphError: the text is too large, nested too deeply, or invalid in its syntax.
    """
    try:
        return read_document(
            source, syntax=syntax, max_bytes=limits.max_bytes, max_levels=whole_levels(limits)
        )
    except DocumentError as error:
        raise GraphError([Fault(None, str(error))]) from None
