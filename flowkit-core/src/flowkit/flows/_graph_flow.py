"""Flow written as a function that adds nodes to a graph."""

from collections.abc import Callable
from functools import update_wrapper
from inspect import signature
from typing import Any

from flowkit.flows._declarations import wrong_flow
from flowkit.graph import Graph


class GraphFlow:
    """Function that describes a graph. Each call returns a new graph.

    A flow that can be called without arguments is accepted wherever a graph is.
    """

    __name__: str

    def __init__(self, describe: Callable[..., None], **fields: Any) -> None:
        try:
            signature(describe).bind_partial(None)
        except TypeError:
            raise wrong_flow(
                describe, "does not accept a graph; write it as def name(g): ..."
            ) from None
        self._describe = describe
        self._fields = fields
        update_wrapper(self, describe)

    def __call__(self, *args: Any, **kwargs: Any) -> Graph:
        """Return the graph described with these arguments."""
        graph = Graph(**self._fields)
        try:
            signature(self._describe).bind(graph, *args, **kwargs)
        except TypeError as error:
            raise wrong_flow(self._describe, f"cannot be called like this: {error}") from None
        self._describe(graph, *args, **kwargs)
        return graph

    def build_graph(self) -> Graph:
        """Return the graph described without arguments. :meth:`Graph.parse` calls this."""
        return self()
