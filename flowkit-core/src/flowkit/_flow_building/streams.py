"""Nodes of a flow in Python that read the artifacts of other nodes as they are stored."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, formatannotation
from typing import TYPE_CHECKING, Any, NoReturn

from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of, is_of_other_type
from flowkit._flow_building.building import required_flow
from flowkit._flow_building.drafts import Callee, Draft
from flowkit._flow_building.inputs import InputWriter
from flowkit._flow_building.phases import check_same_phase
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.values import NodeRef, Value, expression_of
from flowkit.graph._control_types import runs_on_worker
from flowkit.graph._models import Batching
from flowkit.graph._node_checks import PULL

_FIELDS = ("parallel", "shards", "max_ahead")
"""Options that are fields of the node's input. The other options are those of its windows."""


class ReadsNoStream:
    """Coordinator function or flow. A type checker finds no ``stream`` on it."""

    if not TYPE_CHECKING:
        __name__: str

        def stream(self, *sources: Any, **options: Any) -> NoReturn:
            """Raise the error of a call that only a handler has."""
            raise flow_error(
                f"{self.__name__}.stream: only handlers read artifacts as they are stored, and"
                f" {self.__name__} is none"
            )


def stream_node(
    callee: Callee, sources: Sequence[Any], options: Mapping[str, Any]
) -> NodeRef[None]:
    """Make a node that calls a handler with the artifacts of others, one by one or in windows.

    Raises:
        GraphError: no flow is being built, or the arguments are wrong. The message names their
            line.
    """
    name = callee.__name__
    flow = required_flow(f"{name}.stream makes a node")
    if not sources:
        raise flow_error(f"{name}.stream: give the nodes whose artifacts it reads")
    writer = flow.writer()
    fields = _fields(name, options, writer)
    _check_parameters(callee, in_windows="batching" in fields)
    parents = dict.fromkeys(flow.draft_of(_node(name, source)) for source in sources)
    if len(parents) < len(sources):
        raise flow_error(f"{name}.stream: a node is given twice; it is read once")
    for parent in parents:
        _check_stores(name, parent)
    draft = flow.handler_node(callee)
    check_same_phase(draft, parents)
    draft.has_result = False
    draft.io |= {
        "input_inline": {
            "input_adapter": PULL,
            "input_args": {"from_nodes": [parent.node_id for parent in parents]},
        },
        **fields,
    }
    for parent in parents:
        parent.is_named = True
    draft.parents |= parents
    draft.streams |= parents
    return flow.node(draft, writer, None)


def _node(name: str, source: Any) -> NodeRef[Any]:
    if isinstance(source, NodeRef):
        return source
    if isinstance(source, (list, tuple)):
        advice = f"several nodes are given one by one, as in {name}.stream(a, b)"
        raise flow_error(f"{name}.stream reads the artifacts of nodes, not a list; {advice}")
    given = expression_of(source).source if isinstance(source, Value) else type(source).__name__
    raise flow_error(
        f"{name}.stream reads the artifacts of a node, not {given}; give it the value of a call"
    )


def _fields(name: str, options: Mapping[str, Any], writer: InputWriter) -> dict[str, Any]:
    """Return the fields of the node's input for these options."""
    known = (*Batching.model_fields, *_FIELDS)
    for word in options:
        if word not in known:
            near = get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise flow_error(f"{name}.stream has no option {word!r}; {hint}")
    given = {
        word: writer.seconds(writer.option(word, value), word)
        for word, value in options.items()
        if value is not None
    }
    fields = {word: given.pop(word) for word in _FIELDS if word in given}
    if given and "size" not in given:
        raise flow_error(f"{name}.stream: {' and '.join(given)} needs the size of the windows")
    return {**fields, "batching": given} if given else fields


def _check_parameters(callee: Callee, *, in_windows: bool) -> None:
    """Check that a handler can take what its node reads: artifacts, which are objects, or lists of
    them.
    """
    name, parameters = callee.__name__, callee.parameters
    if not parameters:
        raise flow_error(f"{name}.stream: {name} has no parameter for the artifacts")
    if len(parameters) == 1:
        _check_parameter(name, parameters[0], in_windows=in_windows)
    elif in_windows:
        names = ", ".join(parameter.name for parameter in parameters)
        raise flow_error(
            f"{name}.stream: with a size, it is called with a list, and it has the parameters"
            f" {names}; declare one"
        )


def _check_parameter(name: str, parameter: Parameter, *, in_windows: bool) -> None:
    what = f"the argument {parameter.name!r} of {name}"
    if takes(parameter, [] if in_windows else {}, what):
        return
    declared = f"it is declared as {formatannotation(parameter.annotation)}"
    if in_windows:
        raise flow_error(f"{name}.stream: with a size, {what} is a list of artifacts; {declared}")
    hint = "; for lists of artifacts, give a size" if takes(parameter, [], what) else ""
    raise flow_error(f"{name}.stream: {what} is an artifact, which is an object; {declared}{hint}")


def takes(parameter: Parameter, sample: Any, what: str) -> bool:
    """Return whether a parameter may take values of the JSON type of a sample.

    Raises:
        GraphError: its annotation cannot be used.
    """
    try:
        adapter = adapter_of(parameter.annotation, what)
    except UnusableAnnotation as error:
        raise flow_error(str(error)) from None
    return adapter is None or not is_of_other_type(sample, adapter)


def _check_stores(name: str, parent: Draft) -> None:
    """Check that a node may store artifacts."""
    if "map" in parent.fields:
        raise flow_error(
            f"{name}.stream: the map {parent.node_id!r} has no artifacts of its own; give its value"
            " to a call"
        )
    if not runs_on_worker(parent.type):
        raise flow_error(
            f"{name}.stream: {parent.node_id!r} is a node of the type {parent.type!r}, which stores"
            " no artifacts"
        )
