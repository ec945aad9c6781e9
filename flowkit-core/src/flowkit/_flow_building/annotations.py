"""Annotations of functions, and the pydantic adapters that check values by them."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from flowkit._json.values import NotJson, json_copy


class UnusableAnnotation(Exception):
    """An annotation cannot be used. The message is a sentence about it."""


def resolved(annotation: Any, name: str, target: Callable[..., Any]) -> Any:
    """Return an annotation of ``target`` that may be written as a string. ``name`` is what it
    describes.

    Raises:
        UnusableAnnotation: a name in it cannot be found.
    """
    if not isinstance(annotation, str):
        return annotation
    scope = dict(inspect.getclosurevars(target).nonlocals) if inspect.isfunction(target) else {}
    module = sys.modules.get(getattr(target, "__module__", ""), None)
    names = getattr(target, "__globals__", vars(module) if module else {})
    described = SimpleNamespace(__annotations__={"value": annotation})
    try:
        return get_type_hints(described, names, scope, include_extras=True)["value"]
    except Exception as error:
        raise UnusableAnnotation(
            f"the annotation {annotation!r} of {name} cannot be resolved ({error});"
            " import it at run time"
        ) from None


def adapter_of(annotation: Any, name: str) -> TypeAdapter[Any] | None:
    """Return the adapter that checks values by an annotation, or None if it has no annotation.

    Raises:
        UnusableAnnotation: pydantic cannot validate it.
    """
    if annotation is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        raise UnusableAnnotation(
            f"pydantic cannot validate the annotation {annotation!r} of {name}:"
            f" {str(error).splitlines()[0]}"
        ) from None


def is_of_other_type(empty: Any, adapter: TypeAdapter[Any]) -> bool:
    """Return whether a type accepts no value like this empty one: no list, or no object."""
    try:
        adapter.validate_python(empty)
    except ValidationError as error:
        return all(one["type"].endswith("_type") for one in error.errors())
    except Exception:
        return False  # a validator of the user's that expects more
    return False


def json_of(value: Any, adapter: TypeAdapter[Any] | None, what: str) -> Any:
    """Return a value as JSON. If its type cannot read that, or it is not JSON, it is written as its
    type is, provided that the type reads the same value: a ``timedelta``, a ``Decimal``, a set, a
    model with aliases. ``what`` names it in errors.

    Raises:
        NotJson: it has no such form.
    """
    if adapter is None:
        return json_copy(value, what)
    fault: NotJson | None = None
    made: Any = None
    try:
        made = json_copy(value, what)
        adapter.validate_python(made)
    except NotJson as error:
        fault = error
    except ValidationError:
        pass
    else:
        return made
    try:
        written = json_copy(_dumped(value, adapter), what)
        if adapter.validate_python(written) == value:
            return written
    except ValueError:
        pass  # neither form can be read, so the first one counts
    if fault is not None:
        raise fault
    return made


def _dumped(value: Any, adapter: TypeAdapter[Any]) -> Any:
    """Return a value as its type writes it. Sets are sorted: their order differs from one process
    to the next.
    """
    return _sorted(
        adapter.dump_python(value, mode="json", by_alias=True, warnings=False),
        adapter.dump_python(value, mode="python", by_alias=True, warnings=False),
    )


def _sorted(written: Any, value: Any) -> Any:
    if isinstance(written, list) and isinstance(value, (set, frozenset)):
        return sorted(written, key=repr)
    if isinstance(written, list) and isinstance(value, (list, tuple)):
        return [_sorted(*pair) for pair in zip(written, value, strict=True)]
    if isinstance(written, dict) and isinstance(value, dict):
        parts = zip(written.items(), value.values(), strict=True)
        return {key: _sorted(part, item) for (key, part), item in parts}
    return written


def fields_of(annotation: Any) -> Collection[str] | None:
    """Return the names of the fields of a model or dataclass, or None if others may be read."""
    kind = present(annotation)
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        fields = kind.model_fields
        if kind.model_config.get("extra") == "allow" or any(
            field.alias or field.serialization_alias for field in fields.values()
        ):
            return None
        return [*fields, *kind.model_computed_fields]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return None


def field_type(annotation: Any, name: str) -> Any:
    """Return the type of a field of a model or dataclass, or None if it is not known."""
    kind = present(annotation)
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        field = kind.model_fields.get(name)
        return None if field is None else field.annotation
    if not dataclasses.is_dataclass(kind):
        return None
    try:
        return get_type_hints(kind).get(name)
    except Exception:
        return None  # an annotation is imported for type checkers only


def present(annotation: Any) -> Any:
    """Return ``T`` for ``T | None``, and other annotations as they are."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else annotation
