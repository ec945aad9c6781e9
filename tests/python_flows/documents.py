"""Graph documents to which flows in Python are compared."""

from typing import Any

from flowkit import Graph
from flowkit.flows import Flow


def document_of(flow: Flow[...]) -> dict[str, Any]:
    """Return the graph of a flow as a document, without its params."""
    document = flow.build_graph().to_dict()
    del document["params"]
    return document


def document(text: str) -> dict[str, Any]:
    """Return a graph in YAML as a document."""
    return Graph.parse(text).to_dict()
