"""Flow in typed Python: the calls of handlers are its nodes."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from inspect import Parameter, signature
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    overload,
)

from flowkit._embedded import run_embedded
from flowkit._flow_building import FlowBuilding, MapRef, NodeRef, building_flow
from flowkit._flow_building.annotations import UnusableAnnotation, resolved
from flowkit._flow_building.drafts import Draft, member
from flowkit._flow_building.early_uses import early_uses
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.maps import map_node
from flowkit._flow_building.params import (
    UnusableParameter,
    flow_parameters,
    params_schema,
    written_params,
)
from flowkit._flow_building.places import defined_at, flow_error
from flowkit._flow_building.streams import ReadsNoStream
from flowkit.errors import ConfigError
from flowkit.flows._declarations import check_function, wrong_flow
from flowkit.graph import Graph
from flowkit.task import TaskView

if TYPE_CHECKING:
    from flowkit.client import TaskVerbs

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)


class BuiltFlow(NamedTuple):
    """Graph of a flow, and the handlers that it calls, by role."""

    graph: Graph
    handlers: Mapping[str, Any]


class _TakesItem(Protocol[Item_contra, R_co]):
    """Flow that may be given one param."""

    def __call__(self, item: Item_contra, /) -> NoReturn: ...
    def _result(self) -> R_co: ...


class _TakesMore(Protocol[Item_contra, R_co]):
    """Flow that may be given more than one param. Types cannot say which ones are fixed for all
    items, so they are checked when the flow is built.
    """

    def __call__(self, item: Item_contra, second: Any, /, *more: Any, **named: Any) -> NoReturn: ...
    def _result(self) -> R_co: ...


class Flow(ReadsNoStream, Generic[P, R_co]):
    """Function whose calls of handlers are the nodes of a graph.

    Its parameters are the params of the task, and the value that it returns is the task's result.
    It is accepted wherever a graph is. For type checkers, ``Flow[...]`` has a result of any type.
    """

    __name__: str = "flow"

    if TYPE_CHECKING:

        def _result(self) -> R_co: ...

    else:

        def __class_getitem__(cls, types: Any) -> GenericAlias:
            return GenericAlias(cls, types)

    def __init__(self, function: Callable[P, Any], **fields: Any) -> None:
        """``fields`` are those of the graph itself.

        Raises:
            TypeError: the function cannot be a flow. The message names its file and line.
        """
        check_function(function)
        try:
            parameters = flow_parameters(function)
            schema = params_schema(parameters)
        except UnusableParameter as error:
            raise wrong_flow(function, f"cannot be a flow: {error}") from None
        self._function = function
        self._parameters = parameters
        self._fields = {**fields, "params": schema}
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """A flow is not called: its function would only build the graph."""
        raise flow_error(
            f"the flow {self.__name__} cannot be called; use {self.__name__}.run(...) or await"
            f" {self.__name__}.submit(client, ...), and subflow({self.__name__}, ...) in a flow"
        )

    def build_graph(self) -> Graph:
        """Return the graph. :meth:`flowkit.Graph.parse` calls this."""
        return self.build().graph

    def build(self) -> BuiltFlow:
        """Return the graph with the handlers that the flow calls.

        Raises:
            GraphError: the flow has faults. Each names the line of the file.
        """
        building = FlowBuilding(self.__name__, defined_at(self._function), self)
        values: dict[str, Any] = {
            one.name: building.value(f"params{member(one.name)}", one.annotation)
            for one in self._parameters
        }
        function: Callable[..., Any] = self._function
        with building.active(), early_uses():
            returned = function(**values)
            output = building.output(returned)
        return BuiltFlow(building.graph({**self._fields, "output": output}), building.handlers)

    @overload
    def map(
        self: "_TakesItem[Item, R]",
        values: Iterable[Item],
        /,
        *,
        max_parallel: int | None = None,
        on_item_failure: Literal["fail", "continue"] = "fail",
    ) -> MapRef[R]: ...
    @overload
    def map(
        self: "_TakesMore[Item, R]",
        values: Iterable[Item],
        /,
        *,
        max_parallel: int | None = None,
        on_item_failure: Literal["fail", "continue"] = "fail",
        **fixed: Any,
    ) -> MapRef[R]: ...
    def map(
        self: Any,
        /,
        *values: Any,
        max_parallel: int | None = None,
        on_item_failure: str = "fail",
        **fixed: Any,
    ) -> MapRef[Any]:
        """Make a node of another flow that runs this flow for each value of a list, or for each
        artifact of a node that yields, as it is stored: each time as a task of its own.

        A value is the first param of its task, and ``fixed`` are the other ones. The value of the
        node is the list of the results.
        """
        return map_node(
            _MappedFlow(self),
            values,
            fixed,
            max_parallel=max_parallel,
            on_item_failure=on_item_failure,
        )

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Parameters, with their annotations."""
        return self._parameters

    @property
    def returns(self) -> Any:
        """Annotation of the result, or None if it is not known."""
        written = signature(self._function).return_annotation
        try:
            found = resolved(written, "the result", self._function)
        except UnusableAnnotation:
            return None  # it is imported for type checkers only
        if get_origin(found) is NodeRef:
            return get_args(found)[0]
        if get_origin(found) is MapRef:
            return GenericAlias(list, get_args(found))
        return None if found is Parameter.empty else found

    def run(self, *args: P.args, **kwargs: P.kwargs) -> TaskView:
        """Run the flow in this process, without any server, and return the ended task.

        Store and bus are an SQLite file, which is removed at the end. A task that fails is returned
        too.

        Raises:
            GraphError: the flow or its params have faults.
            ConfigError: flowkit-sqlite is not installed, or a graph inside of the flow needs a
                handler that the flow does not call.
            RuntimeError: an event loop is running in this thread.
        """
        self._check_outside("run")
        params = self._params(*args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            graph, handlers = self.build()
            self._check_roles(graph, handlers)
            return run_embedded(graph, handlers, params)
        raise RuntimeError(
            f"{self.__name__}.run cannot be called while an event loop is running; use await"
            f" {self.__name__}.submit(client, ...)"
        )

    async def submit(self, client: "TaskVerbs", /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Submit a task of the flow with a client or a coordinator, and return its id.

        Raises:
            GraphError: the flow or its params have faults.
        """
        self._check_outside("submit")
        return await client.create_task(graph=self, params=self._params(*args, **kwargs))

    def _check_roles(self, graph: Graph, handlers: Mapping[str, Any]) -> None:
        for role, nodes in graph.roles.items():
            if role not in handlers:
                raise ConfigError(
                    f"{self.__name__}.run knows the handlers that the flow calls, and none for the"
                    f" role {role!r} of node {nodes[0]!r}; use flowkit run --handlers module:attr"
                )

    def _check_outside(self, verb: str) -> None:
        if building_flow() is not None:
            raise flow_error(
                f"{self.__name__}.{verb} cannot be called in a flow, which only builds a graph; use"
                f" subflow({self.__name__}, ...)"
            )

    def _params(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        given = arguments(self.__name__, self._parameters, args, kwargs)
        return written_params(self._parameters, given)


def child_graph(building: FlowBuilding, flow: Flow[Any, Any]) -> dict[str, Any]:
    """Return the graph of a flow that runs inside of another one, which gets its handlers.

    Raises:
        GraphError: the flow has faults, or contains itself.
    """
    built = flow.build()
    for role, callee in built.handlers.items():
        building.add_handler(role, callee)
    return built.graph.to_dict()


def child_params(
    flow: str, parameters: Sequence[Parameter], writer: InputWriter, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the params of a flow that runs inside of another one, as they are written.

    Raises:
        GraphError: a value does not fit the annotation of its parameter.
    """
    annotations = {one.name: one.annotation for one in parameters}
    return {
        name: writer.argument(value, annotations[name], f"the argument {name!r} of {flow}")
        for name, value in given.items()
    }


class _MappedFlow:
    """Flow that runs as a child task for each item of a map."""

    def __init__(self, flow: Flow[Any, Any]) -> None:
        self.__name__ = flow.__name__
        self._flow = flow

    @property
    def parameters(self) -> Sequence[Parameter]:
        return self._flow.parameters

    def new_draft(self, flow: FlowBuilding) -> Draft:
        graph = child_graph(flow, self._flow)
        draft = flow.new_node(self.__name__, "subflow")
        draft.io["graph"] = graph
        return draft

    def written_io(self, writer: InputWriter, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"params": child_params(self.__name__, self.parameters, writer, given)}
