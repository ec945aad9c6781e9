"""Params of a flow: the JSON Schema of a function's parameters."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of, json_of, resolved
from flowkit._json.values import NotJson
from flowkit._text.validation_errors import message_of

REFERENCE = "#/$defs/{model}"
DURATION = r"^[-+]?P(\d+[YMWD])*(T(\d+(\.\d+)?[HMS])+)?$"
TIME = r"^\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[-+]\d\d:\d\d)?$"
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class ParamsJsonSchema(GenerateJsonSchema):
    """JSON Schemas that accept all durations and times that pydantic writes. The formats of JSON
    Schema have no fractions of a second, no negative durations, and no times without a zone.
    """

    def timedelta_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a duration, such as ``PT1H30M``."""
        return {"type": "string", "pattern": DURATION}

    def time_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a time of day, such as ``08:30:00``."""
        return {"type": "string", "pattern": TIME}


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
            schema_generator=ParamsJsonSchema,
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
    if isinstance(parameter.default, datetime) and parameter.default.tzinfo is None:
        raise UnusableParameter(
            f"the default of {parameter.name!r} is a time without a zone; write"
            " datetime(..., tzinfo=UTC)"
        )
    try:
        adapter.validate_python(parameter.default)
        return json_of(parameter.default, adapter, f"the default of {parameter.name!r}")
    except ValidationError as error:
        reason = message_of(error.errors(include_url=False, include_input=False)[0])
        raise UnusableParameter(
            f"the default of {parameter.name!r} does not match its type: {reason}"
        ) from None
    except NotJson as error:
        raise UnusableParameter(str(error)) from None


def written_params(parameters: list[inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return params as they are submitted: values that are not JSON are written as their types
    are. Those that do not fit are refused by the JSON Schema.
    """
    written = dict(given)
    for one in parameters:
        if one.name in given:
            with suppress(NotJson):
                value = given[one.name]
                written[one.name] = json_of(value, _adapter(one), f"the param {one.name!r}")
    return written
