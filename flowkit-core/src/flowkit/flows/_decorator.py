"""Decorator of flows."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from flowkit._flow_building import NodeRef
from flowkit.flows._declarations import check_function, wrong_flow
from flowkit.flows._flow import Flow
from flowkit.flows._graph_flow import GraphFlow
from flowkit.graph import Graph

P = ParamSpec("P")
R = TypeVar("R")


class _Describes(Protocol):
    """Function that adds nodes to the graph ``g``."""

    def __call__(self, g: Graph, *args: Any, **kwargs: Any) -> None: ...


class _Decorate(Protocol):
    @overload
    def __call__(self, function: _Describes, /) -> GraphFlow: ...
    @overload
    def __call__(self, function: Callable[P, NodeRef[R]], /) -> Flow[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(function: _Describes, /) -> GraphFlow: ...
@overload
def flow(function: Callable[P, NodeRef[R]], /) -> Flow[P, R]: ...
@overload
def flow(function: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    on_node_failure: str = "stop",
    deadline_sec: float | None = None,
    max_parallel: int | None = None,
    segments: str | None = None,
    params: Mapping[str, Any] | None = None,
    output: str | Mapping[str, Any] | None = None,
) -> _Decorate: ...
def flow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    on_node_failure: str = "stop",
    deadline_sec: float | None = None,
    max_parallel: int | None = None,
    segments: str | None = None,
    params: Mapping[str, Any] | None = None,
    output: str | Mapping[str, Any] | None = None,
) -> Any:
    """Make a flow from a function that calls handlers::

        @flow
        def etl(tenants: list[str], day: date = date(2026, 1, 1)):
            rows = extract(tenants, day)
            load(rows).on_failure(alert)
            return {"total": rows.total}

        view = etl.run(tenants=["a", "b"])
        task_id = await etl.submit(client, tenants=["a", "b"])

    The other arguments are fields of the graph. A function whose first parameter is named ``g`` or
    annotated with :class:`~flowkit.Graph` adds nodes to that graph instead, and has its
    ``params`` and its ``output`` here::

        @flow
        def nightly(g):
            count = g.node("count", "counter", input_inline={"path": "data"})
            g.node("report", "reporter", after=[count])

    Raises:
        TypeError: the function cannot be a flow. The message names its file and line.
    """
    fields = {
        "on_node_failure": on_node_failure,
        "deadline_sec": deadline_sec,
        "max_parallel": max_parallel,
        "segments": segments,
    }

    def decorate(function: Callable[..., Any]) -> Any:
        check_function(function)
        if _adds_nodes(function):
            return GraphFlow(function, params=params, output=output, **fields)
        if params is not None:
            raise wrong_flow(function, "has its params in its signature; remove params= of @flow")
        if output is not None:
            raise wrong_flow(function, "returns its output; remove output= of @flow")
        return Flow(function, **fields)

    return decorate if function is None else decorate(function)


def _adds_nodes(function: Callable[..., Any]) -> bool:
    """Return whether a function takes the graph that it describes."""
    first = next(iter(signature(function).parameters.values()), None)
    return first is not None and (
        first.name == "g"
        or first.annotation is Graph
        or first.annotation in ("Graph", "flowkit.Graph")
    )
