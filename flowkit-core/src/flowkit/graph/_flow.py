"""Flows written as decorated functions."""

from collections.abc import Callable, Mapping
from functools import update_wrapper
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Generic, ParamSpec, overload

from flowkit.graph._graph import Graph

P = ParamSpec("P")


class Flow(Generic[P]):
    """Function that describes a graph. Each call returns a new graph.

    A flow that can be called without arguments is accepted wherever a graph is.
    """

    __name__: str

    def __init__(
        self,
        describe: Callable[..., None],
        *,
        on_node_failure: str,
        deadline_sec: float | None,
        max_parallel: int | None,
        params: Mapping[str, Any] | None,
        output: str | Mapping[str, Any] | None,
    ) -> None:
        if isinstance(describe, type) or not callable(describe):
            raise _flow_error(describe, "is not a function; write a flow as def name(g): ...")
        if iscoroutinefunction(describe) or isasyncgenfunction(describe):
            raise _flow_error(
                describe,
                "is an async function; a graph is described without awaiting, so write it with def",
            )
        if isgeneratorfunction(describe):
            raise _flow_error(
                describe, "is a generator; add nodes to the given graph and return nothing"
            )
        try:
            signature(describe).bind_partial(None)
        except TypeError:
            raise _flow_error(
                describe, "does not accept a graph; write it as def name(g): ..."
            ) from None
        self._describe = describe
        self._on_node_failure = on_node_failure
        self._deadline_sec = deadline_sec
        self._max_parallel = max_parallel
        self._params = params
        self._output = output
        update_wrapper(self, describe)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Graph:
        """Return the graph described with these arguments."""
        graph = Graph(
            on_node_failure=self._on_node_failure,
            deadline_sec=self._deadline_sec,
            max_parallel=self._max_parallel,
            params=self._params,
            output=self._output,
        )
        try:
            signature(self._describe).bind(graph, *args, **kwargs)
        except TypeError as error:
            raise _flow_error(self._describe, f"cannot be called like this: {error}") from None
        self._describe(graph, *args, **kwargs)
        return graph

    def build_graph(self) -> Graph:
        """Return the graph described without arguments. :meth:`Graph.parse` calls this."""
        describe: Callable[[], Graph] = self.__call__
        return describe()


def _flow_error(describe: Any, fault: str) -> TypeError:
    """Return an error that names the function with its file and line."""
    code = getattr(describe, "__code__", None)
    place = "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno})"
    return TypeError(f"@flow: {getattr(describe, '__name__', repr(describe)[:200])} {fault}{place}")


@overload
def flow(describe: Callable[..., None], /) -> Flow[...]: ...
@overload
def flow(
    *,
    on_node_failure: str = "stop",
    deadline_sec: float | None = None,
    max_parallel: int | None = None,
    params: Mapping[str, Any] | None = None,
    output: str | Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., None]], Flow[...]]: ...
def flow(
    describe: Callable[..., None] | None = None,
    /,
    *,
    on_node_failure: str = "stop",
    deadline_sec: float | None = None,
    max_parallel: int | None = None,
    params: Mapping[str, Any] | None = None,
    output: str | Mapping[str, Any] | None = None,
) -> Any:
    """Make a flow from a function that adds nodes to a graph::

        @flow
        def nightly(g):
            count = g.node("count", "counter", input_inline={"path": "data"})
            g.node("report", "reporter", after=[count])

        task_id = await client.create_task(graph=nightly)

    Further parameters are given when the flow is called: ``nightly(size=3)`` is a :class:`Graph`.
    """

    def decorate(describe: Callable[..., None]) -> Flow[...]:
        return Flow(
            describe,
            on_node_failure=on_node_failure,
            deadline_sec=deadline_sec,
            max_parallel=max_parallel,
            params=params,
            output=output,
        )

    return decorate if describe is None else decorate(describe)
