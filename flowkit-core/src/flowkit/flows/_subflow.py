"""Sub-flows, as a function of a flow in Python."""

from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar, overload

from flowkit._flow_building import NodeRef, required_flow
from flowkit._flow_building.building import FlowBuilding
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.places import flow_error
from flowkit.flows._flow import Flow, child_graph, child_params
from flowkit.flows._graph_flow import GraphFlow
from flowkit.graph import FlowRef, Graph

P = ParamSpec("P")
R = TypeVar("R")

AnyGraph = Graph | GraphFlow | Mapping[str, Any] | FlowRef | str


@overload
def subflow(flow: Flow[P, R], /, *args: P.args, **params: P.kwargs) -> NodeRef[R]: ...
@overload
def subflow(flow: AnyGraph, /, **params: Any) -> NodeRef[Any]: ...
def subflow(flow: Any, /, *args: Any, **params: Any) -> NodeRef[Any]:
    """Make a node that runs a flow or a graph as a task of its own. Its value is the result of that
    task.

    A text is the name of a registered flow, and :class:`~flowkit.FlowRef` names a version of one.
    The arguments are the params of the task. Those of a graph or a registered flow are given by
    name.

    Raises:
        GraphError: no flow is being built, the arguments do not fit, or the flow contains itself.
            The message names the line.
    """
    building = required_flow("subflow makes a node")
    child = ChildFlow.of(building, "subflow", flow)
    draft, writer = building.new_node(child.name, "subflow"), building.writer()
    draft.io |= child.io(writer, args, params)
    return building.node(draft, writer, child.returns)


class ChildFlow:
    """Flow or graph that a node runs as a task of its own."""

    def __init__(
        self,
        name: str,
        runs: dict[str, Any],
        parameters: Sequence[Parameter] | None = None,
        returns: Any = None,
        built_with: Collection[str] = (),
    ) -> None:
        """``runs`` are the fields of ``io`` with the graph or the registered flow. ``parameters``
        are None if only the graph knows its params. ``built_with`` are the arguments of a function
        that builds the graph, which are no params.
        """
        self.name = name
        self.returns = returns
        self._runs = runs
        self._parameters = parameters
        self._built_with = built_with

    @classmethod
    def of(cls, building: FlowBuilding, what: str, flow: Any) -> "ChildFlow":
        """Read what a function of the flow that is being built was given. ``what`` is its name.

        Raises:
            GraphError: it is neither a flow nor a graph, has faults, or contains itself.
        """
        if isinstance(flow, Flow):
            graph = {"graph": child_graph(building, flow)}
            return cls(flow.__name__, graph, flow.parameters, flow.returns)
        if isinstance(flow, GraphFlow):
            arguments_of = list(signature(flow).parameters)[1:]
            graph = {"graph": flow.build_graph().to_dict()}
            return cls(flow.__name__, graph, built_with=arguments_of)
        if isinstance(flow, Graph):
            return cls(what, {"graph": flow.to_dict()})
        if isinstance(flow, Mapping):
            return cls(what, {"graph": dict(flow)})
        if isinstance(flow, FlowRef | str):
            ref = FlowRef(flow) if isinstance(flow, str) else flow
            version = {} if ref.version is None else {"version": ref.version}
            return cls(what, {"flow": ref.name, **version})
        raise flow_error(
            f"{what} takes a @flow function, a Graph, a graph document, or the name of a registered"
            f" flow, not {flow!r:.80}"
        )

    def io(
        self, writer: InputWriter, args: Sequence[Any], params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the graph or registered flow, and the params, as fields of ``io``.

        Raises:
            GraphError: the params do not fit.
        """
        made = dict(self._runs)
        written = self._params(writer, args, params)
        if written:
            made["params"] = written
        return made

    def _params(
        self, writer: InputWriter, args: Sequence[Any], params: Mapping[str, Any]
    ) -> dict[str, Any]:
        if self._parameters is None:
            if args:
                kind = "graph" if "graph" in self._runs else "registered flow"
                raise flow_error(f"{self.name}: give the params of a {kind} by name")
            for name in params:
                if name in self._built_with:
                    raise flow_error(
                        f"{name!r} is an argument with which {self.name} builds its graph, and no"
                        f" param of a task; give the graph: {self.name}({name}=...)"
                    )
            return {
                name: writer.value(value, f"the param {name!r}") for name, value in params.items()
            }
        given = arguments(self.name, self._parameters, args, params)
        return child_params(self.name, self._parameters, writer, given)
