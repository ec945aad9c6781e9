"""Annotations of functions, and the pydantic adapters that check values by them."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation


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
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError) as error:
        raise UnusableAnnotation(
            f"pydantic cannot validate the annotation {annotation!r} of {name}:"
            f" {str(error).splitlines()[0]}"
        ) from None


def fields_of(annotation: Any) -> Collection[str] | None:
    """Return the names of the fields of a model or dataclass, or None if others may be read."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        if annotation.model_config.get("extra") == "allow" or any(
            field.alias or field.serialization_alias for field in fields.values()
        ):
            return None
        return [*fields, *annotation.model_computed_fields]
    if dataclasses.is_dataclass(annotation):
        return [field.name for field in dataclasses.fields(annotation)]
    return None
