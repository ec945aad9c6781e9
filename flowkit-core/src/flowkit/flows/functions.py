"""Coordinator functions, as functions of a flow in Python.

A call makes a node of ``type: "coordinator_fn"``. Arguments that name nodes are nodes of the flow::

    rows = [read("a"), read("b")]
    merge_generic(rows, target="rows")
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from flowkit._flow_building import FlowBuilding, NodeRef, required_flow
from flowkit._flow_building.annotations import UnusableAnnotation, resolved
from flowkit._flow_building.drafts import Draft
from flowkit._flow_building.inputs import InputWriter, arguments
from flowkit._flow_building.maps import Mappable
from flowkit._flow_building.places import defined_at, flow_error, with_place
from flowkit._flow_building.streams import ReadsNoStream
from flowkit.coordinator import _builtin_functions
from flowkit.coordinator.functions import FunctionContext
from flowkit.errors import ConfigError
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.graph._templates import ARGUMENTS_THAT_NAME_NODES

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")
R_co = TypeVar("R_co", covariant=True)


class CoordinatorFunction(Mappable, ReadsNoStream, Generic[P, R_co]):
    """Coordinator function whose calls in a flow make nodes.

    For a function of a plugin, give its name and, for checks of its arguments, the function
    itself: ``publish = CoordinatorFunction("kafka.publish", publish_function)``.
    """

    @overload
    def __init__(self: "CoordinatorFunction[..., Any]", name: str) -> None: ...
    @overload
    def __init__(
        self: "CoordinatorFunction[P, R]",
        name: str,
        function: Callable[Concatenate[FunctionContext, P], Coroutine[Any, Any, R]],
    ) -> None: ...
    @overload
    def __init__(
        self: "CoordinatorFunction[P, R]",
        name: str,
        function: Callable[Concatenate[FunctionContext, P], R],
    ) -> None: ...
    def __init__(self, name: str, function: Callable[..., Any] | None = None) -> None:
        """``function`` takes the context first.

        Raises:
            ConfigError: there is no name, or an annotation of the function cannot be resolved.
        """
        if not isinstance(name, str) or not name:
            raise ConfigError('a coordinator function has a name: CoordinatorFunction("name")')
        self.name = name
        """Name under which it is registered."""
        self.__name__ = name.replace(".", "_")
        self._parameters, self._returns = _signature(name, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> NodeRef[R_co]:
        """Make a node of the flow that is being built."""
        flow = required_flow(f"{self.__name__} makes a node")
        given = self._given(args, kwargs)
        draft, writer = self.new_draft(flow), flow.writer()
        draft.io |= self.written_io(writer, given)
        return flow.node(draft, writer, self._returns)

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Parameters aside from the context.

        Raises:
            GraphError: they are not known.
        """
        if self._parameters is None:
            raise flow_error(
                f"{self.__name__}.map needs to know the parameters; give the function, as in"
                f" CoordinatorFunction({self.name!r}, function)"
            )
        return list(self._parameters.values())

    def new_draft(self, flow: FlowBuilding) -> Draft:
        """Add a node that calls it."""
        draft = flow.new_node(self.__name__, COORDINATOR_FUNCTION)
        draft.io["fn"] = self.name
        return draft

    def written_io(self, writer: InputWriter, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the input of a node that calls it with these arguments."""
        return {"fn_args": {name: self._written(writer, name, one) for name, one in given.items()}}

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._parameters is not None:
            return arguments(self.__name__, list(self._parameters.values()), args, kwargs)
        if args:
            raise flow_error(f"{self.__name__}: give its arguments by name")
        return kwargs

    def _written(self, writer: InputWriter, name: str, value: Any) -> Any:
        what = f"the argument {name!r} of {self.__name__}"
        if name == ARGUMENTS_THAT_NAME_NODES.get(self.name):
            return writer.node_ids(value, what)
        parameter = (self._parameters or {}).get(name)
        return writer.argument(
            value, Parameter.empty if parameter is None else parameter.annotation, what
        )


def _signature(
    name: str, function: Callable[..., Any] | None
) -> tuple[Mapping[str, Parameter] | None, Any]:
    """Return the parameters of a function after its context, or None if any are accepted, and the
    type of its result.
    """
    if function is None:
        return None, None
    found = signature(function)
    try:
        parameters = {
            one.name: one.replace(annotation=resolved(one.annotation, repr(one.name), function))
            for one in list(found.parameters.values())[1:]
        }
        returns = resolved(found.return_annotation, "its result", function)
    except UnusableAnnotation as error:
        raise ConfigError(
            with_place(f"coordinator function {name!r}: {error}", defined_at(function))
        ) from None
    variable = any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters.values())
    return None if variable else parameters, returns


vars_set = CoordinatorFunction("vars.set", _builtin_functions.vars_set)
vars_merge = CoordinatorFunction("vars.merge", _builtin_functions.vars_merge)
vars_incr = CoordinatorFunction("vars.incr", _builtin_functions.vars_incr)
vars_unset = CoordinatorFunction("vars.unset", _builtin_functions.vars_unset)
merge_generic = CoordinatorFunction("merge.generic", _builtin_functions.merge_generic)
metrics_aggregate = CoordinatorFunction("metrics.aggregate", _builtin_functions.metrics_aggregate)
task_end = CoordinatorFunction("task.end", _builtin_functions.task_end)
noop = CoordinatorFunction("noop", _builtin_functions.noop)
