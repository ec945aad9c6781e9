"""Nodes that wait, as functions of a flow in Python."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of
from flowkit._flow_building.building import required_flow
from flowkit._flow_building.params import REFERENCE, ParamsJsonSchema
from flowkit._flow_building.places import flow_error
from flowkit._flow_building.values import NodeRef, Value
from flowkit.graph._control_types import CONTROL_TYPES

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    Form = TypeVarWithDefault("Form", default=Any)
else:
    Form = TypeVar("Form")


class Decision(BaseModel, Generic[Form]):
    """Result of an approval. ``Form`` is the type of the form, and any type by default."""

    choice: str
    by: str
    at: datetime
    values: Form | None = None
    """Values of the form, if there are any."""
    comment: str | None = None


@overload
def sleep(for_sec: float) -> NodeRef[None]: ...
@overload
def sleep(*, until: datetime | str) -> NodeRef[None]: ...
def sleep(for_sec: float | None = None, *, until: datetime | str | None = None) -> NodeRef[None]:
    """Make a node that waits for some seconds, or until a time with a zone.

    Raises:
        GraphError: no flow is being built. The message names the line.
    """
    return _control_node("sleep", None, for_sec=for_sec, until=until)


@overload
def wait_signal(
    name: str,
    *,
    schema: type[T],
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
) -> NodeRef[T]: ...
@overload
def wait_signal(
    name: str,
    *,
    schema: Mapping[str, Any] | None = None,
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
) -> NodeRef[Any]: ...
def wait_signal(
    name: str,
    *,
    schema: Any = None,
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
) -> NodeRef[Any]:
    """Make a node that waits for a signal. Its value is the payload.

    ``schema`` is the type of the payload, or a JSON Schema.

    Raises:
        GraphError: no flow is being built, or the type has no JSON Schema. The message names the
            line.
    """
    written = _schema(schema, "schema")
    return _control_node(
        "wait_signal",
        schema,
        signal=name,
        schema=written,
        timeout_sec=timeout_sec,
        on_timeout=on_timeout,
    )


@overload
def approval(
    prompt: str,
    *,
    form: type[T],
    choices: Sequence[str] | None = None,
    assignees: Sequence[str] | None = None,
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
    on_reject: Literal["fail", "continue"] = "fail",
) -> NodeRef[Decision[T]]: ...
@overload
def approval(
    prompt: str,
    *,
    form: Mapping[str, Any] | None = None,
    choices: Sequence[str] | None = None,
    assignees: Sequence[str] | None = None,
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
    on_reject: Literal["fail", "continue"] = "fail",
) -> NodeRef[Decision[Any]]: ...
def approval(
    prompt: str,
    *,
    form: Any = None,
    choices: Sequence[str] | None = None,
    assignees: Sequence[str] | None = None,
    timeout_sec: float | None = None,
    on_timeout: Literal["fail", "skip"] = "fail",
    on_reject: Literal["fail", "continue"] = "fail",
) -> NodeRef[Any]:
    """Make a node that waits for the decision of a human. Its value is a :class:`Decision`.

    ``form`` is the type of the values that come with a decision, or a JSON Schema. ``choices`` are
    ``approve`` and ``reject`` by default.

    Raises:
        GraphError: no flow is being built, or the type has no JSON Schema. The message names the
            line.
    """
    written = _schema(form, "form")
    typed = form is not None and not isinstance(form, Mapping)
    return _control_node(
        "approval",
        Decision[form] if typed else Decision,
        prompt=prompt,
        form=written,
        choices=choices,
        assignees=assignees,
        timeout_sec=timeout_sec,
        on_timeout=on_timeout,
        on_reject=on_reject,
    )


def _control_node(kind: str, returns: Any, **given: Any) -> NodeRef[Any]:
    """Make a node of a control type. Arguments that have their default are not written."""
    flow = required_flow(f"{kind} makes a node")
    draft, writer, control = flow.new_node(kind, kind), flow.writer(), CONTROL_TYPES[kind]
    defaults = {
        field.alias or name: field.default for name, field in control.io.model_fields.items()
    }
    for name, value in given.items():
        what = f"the argument {name!r} of {kind}"
        if name in control.literal:
            written = writer.option(name, value)
        elif name.endswith("_sec"):
            written = writer.seconds(value, what)
        else:
            written = writer.value(value, what)
        if written is not None and written != defaults[name]:
            draft.io[name] = written
    return flow.node(draft, writer, returns)


def _schema(given: Any, what: str) -> Any:
    """Return a type as JSON Schema, and a JSON Schema as it is."""
    if given is None or isinstance(given, (Mapping, Value)):
        return given
    if isinstance(given, str):
        raise flow_error(f"{what} must be a type or a JSON Schema, not {given!r:.80}")
    try:
        adapter = adapter_of(given, what)
        return adapter and adapter.json_schema(
            ref_template=REFERENCE, schema_generator=ParamsJsonSchema
        )
    except UnusableAnnotation as error:
        raise flow_error(str(error)) from None
    except PydanticInvalidForJsonSchema as error:
        raise flow_error(f"{what}: the type has no JSON Schema: {error.message}") from None
