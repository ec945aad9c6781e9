"""Params of a flow: the JSON Schema of a function's parameters."""

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of, resolved
from flowkit._json.values import NotJson, json_copy

REFERENCE = "#/$defs/{model}"
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class UnusableParameter(Exception):
    """A parameter of a flow cannot be a param of a task. The message is a sentence about it."""


def flow_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a flow, with their annotations resolved.

    Raises:
        UnusableParameter: one of them cannot be a param of a task.
    """
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UnusableParameter(
                f"{parameter} cannot be a param; give each param a parameter of its own"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UnusableParameter(
                f"the parameter {parameter.name!r} is positional-only, but params have names;"
                " remove the '/'"
            )
        try:
            annotation = resolved(
                parameter.annotation, f"the parameter {parameter.name!r}", function
            )
        except UnusableAnnotation as error:
            raise UnusableParameter(str(error)) from None
        found.append(parameter.replace(annotation=annotation))
    return found


def params_schema(parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """Return the JSON Schema of params with these names, types and defaults.

    Raises:
        UnusableParameter: a type has no JSON Schema, or a default does not match its type.
    """
    adapters = {one.name: _adapter(one) for one in parameters}
    try:
        schemas, definitions = TypeAdapter.json_schemas(
            [(name, "validation", adapter) for name, adapter in adapters.items()],
            ref_template=REFERENCE,
        )
    except PydanticInvalidForJsonSchema as error:
        raise UnusableParameter(f"a type has no JSON Schema: {error.message}") from None
    properties = {name: dict(schemas[name, "validation"]) for name in adapters}
    required = []
    for one in parameters:
        if one.default is one.empty:
            required.append(one.name)
        else:
            properties[one.name]["default"] = _default(one, adapters[one.name])
    made: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        made["required"] = required
    return made | definitions


def _adapter(parameter: inspect.Parameter) -> TypeAdapter[Any]:
    try:
        return adapter_of(parameter.annotation, f"the parameter {parameter.name!r}") or _ANY
    except UnusableAnnotation as error:
        raise UnusableParameter(str(error)) from None


def _default(parameter: inspect.Parameter, adapter: TypeAdapter[Any]) -> Any:
    try:
        adapter.validate_python(parameter.default)
        return json_copy(parameter.default, f"the default of {parameter.name!r}")
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UnusableParameter(
            f"the default of {parameter.name!r} does not match its type: {reason}"
        ) from None
    except NotJson as error:
        raise UnusableParameter(str(error)) from None
