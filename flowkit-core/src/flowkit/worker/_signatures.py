"""Parameters of functions that are handlers."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, get_args, is_typeddict
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError

from flowkit._flow_building.annotations import UnusableAnnotation, adapter_of, resolved
from flowkit._json.values import kind_of
from flowkit._text.validation_errors import errors_in, message_of
from flowkit.errors import NodeFailure
from flowkit.worker._context import RunContext

NOT_IN_JSON = (
    BaseModel,
    Enum,
    date,
    time,
    timedelta,
    Decimal,
    UUID,
    PurePath,
    bytes,
    tuple,
    set,
    frozenset,
)
"""Types without a form of their own in JSON: a value of a parameter is converted to them."""
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class UnusableSignature(Exception):
    """A function cannot be called as a handler. The message is a sentence about it."""


@dataclass(frozen=True, slots=True)
class HandlerSignature:
    """Parameters of a function as a handler calls it, and the checks of their values.

    The context is the parameter that is named ``ctx`` or annotated with RunContext. A function with
    one other parameter takes the input itself. One with several takes an object by their names.
    """

    name: str
    order: tuple[inspect.Parameter, ...]
    """All parameters that a call gives."""
    context: str | None
    parameters: tuple[inspect.Parameter, ...]
    """Parameters aside from the context."""
    adapters: Mapping[str, TypeAdapter[Any]]
    returns: Any
    result: TypeAdapter[Any] | None

    @classmethod
    def of(cls, function: Callable[..., Any], *, generates: bool) -> "HandlerSignature":
        """Read the signature of a function, which may be a generator function.

        Raises:
            UnusableSignature: it cannot be called as a handler.
        """
        target = called_function(function)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            raise UnusableSignature("it has no readable signature") from None
        found = [one for one in signature.parameters.values() if one.kind not in VARIABLE]
        _check_no_method(found, target)
        context = next((one.name for one in found if _is_context(one)), None)
        name = getattr(function, "__name__", repr(function))
        try:
            parameters = tuple(
                one.replace(annotation=resolved(one.annotation, repr(one.name), target))
                for one in found
                if one.name != context
            )
            several = len(parameters) > 1
            adapters = {
                one.name: adapter
                for one in parameters
                if several or _mentions(one.annotation, _is_converted)
                if (adapter := adapter_of(one.annotation, repr(one.name))) is not None
            }
            returns = resolved(signature.return_annotation, "its result", target)
            if generates:
                returns = next(iter(get_args(returns)), inspect.Parameter.empty)
            result = adapter_of(returns, "its result") if _mentions(returns, _is_model) else None
        except UnusableAnnotation as error:
            raise UnusableSignature(str(error)) from None
        return cls(name, tuple(found), context, parameters, adapters, returns, result)

    def arguments(self, item: Any, ctx: RunContext) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call with this input.

        Raises:
            NodeFailure: the input does not match; permanent, ``schema_mismatch``.
        """
        values = self._values(item)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for place, one in enumerate(self.order):
            if one.name == self.context:
                value = ctx
            elif one.name in values:
                value = values[one.name]
            elif one.kind is one.POSITIONAL_ONLY:
                value = one.default
            else:
                continue  # it has a default, and those after it are given by name
            if one.kind is one.KEYWORD_ONLY or len(positional) < place:
                named[one.name] = value
            else:
                positional.append(value)
        return positional, named

    def checked_result(self, value: Any) -> Any:
        """Return a result, validated if its annotation mentions a model.

        Raises:
            NodeFailure: it does not match; permanent, ``bad_result``.
        """
        if self.result is None:
            return value
        try:
            return self.result.validate_python(value)
        except ValidationError as error:
            raise self._mismatch("result", _sentences(error, value, ""), "bad_result") from None

    def _values(self, item: Any) -> Mapping[str, Any]:
        if not self.parameters:
            return {}
        if len(self.parameters) == 1:
            name = self.parameters[0].name
            if not self.adapters:
                return {name: item}
            try:
                return {name: self.adapters[name].validate_python(item)}
            except ValidationError as error:
                raise self._mismatch(
                    "input", _sentences(error, item, ""), "schema_mismatch"
                ) from None
        return self._by_name(item)

    def _by_name(self, item: Any) -> dict[str, Any]:
        names = [one.name for one in self.parameters]
        if not isinstance(item, dict):
            advice = f"an object with the keys {', '.join(names)} is needed, not {kind_of(item)}"
            raise self._mismatch("input", [advice], "schema_mismatch")
        values: dict[str, Any] = {}
        faults = [f"{key!r:.80} is not a parameter" for key in item if key not in names]
        for one in self.parameters:
            if one.name not in item:
                faults += [f"{one.name} is missing"] if one.default is one.empty else []
                continue
            adapter = self.adapters.get(one.name)
            value = item[one.name]
            try:
                values[one.name] = value if adapter is None else adapter.validate_python(value)
            except ValidationError as error:
                faults += _sentences(error, value, one.name)
        if faults:
            raise self._mismatch("input", faults, "schema_mismatch")
        return values

    def _mismatch(self, what: str, faults: list[str], reason_code: str) -> NodeFailure:
        count = len(faults)
        return NodeFailure(
            f"the {what} of {self.name} does not match: {faults[0]}"
            f" ({count} {'fault' if count == 1 else 'faults'})",
            reason_code=reason_code,
            permanent=True,
        )


def called_function(function: Any) -> Any:
    """Return the function that a call runs in the end, without wrappers and partials."""
    target = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__


def _check_no_method(parameters: list[inspect.Parameter], target: Any) -> None:
    within = getattr(target, "__qualname__", "").rpartition(".")[0]
    is_in_class = bool(within) and not within.endswith("<locals>")
    if parameters and parameters[0].name == "self" and is_in_class:
        raise UnusableSignature(
            "it is a method, and would be called without self; use a plain function or a Handler"
            " class"
        )


def _is_context(parameter: inspect.Parameter) -> bool:
    return (
        parameter.name == "ctx"
        or parameter.annotation is RunContext
        or parameter.annotation == "RunContext"
    )


def _sentences(error: ValidationError, value: Any, name: str) -> list[str]:
    return [
        f"{'.'.join(map(str, (name, *item['loc']) if name else item['loc'])) or 'the value'}:"
        f" {message_of(item)}"
        for item in errors_in(error, value)
    ]


def _mentions(annotation: Any, wanted: Callable[[type], bool]) -> bool:
    if isinstance(annotation, type) and wanted(annotation):
        return True
    return any(_mentions(part, wanted) for part in get_args(annotation))


def _is_model(kind: type) -> bool:
    return issubclass(kind, BaseModel)


def _is_converted(kind: type) -> bool:
    return issubclass(kind, NOT_IN_JSON) or is_dataclass(kind) or is_typeddict(kind)
