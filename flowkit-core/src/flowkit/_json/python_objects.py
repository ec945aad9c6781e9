"""JSON forms of Python objects whose types JSON does not have.

Reading such an object runs code of its class, so callers contain it.
"""

import json
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel

from flowkit._json.documents import repeated_key

PLAIN_TYPES = frozenset({str, bool, int, float, type(None), dict, list, tuple})
"""Types that are read without running foreign code."""


class NotWritable(Exception):
    """An object cannot be written as JSON. The message is the end of a sentence about it."""


class ModelForms(NamedTuple):
    """Values of a pydantic model in Python, and the JSON that its serializers write."""

    values: Any
    written: Any
    repeated: str | None
    """Key that is written twice in one object.

    Only the text shows both: ``written`` contains the last value.
    """
    has_json_serializers: bool
    """Some of its serializers apply to JSON only, so it may contain values of types that JSON does
    not have.
    """


def read_object(item: Any) -> Any:
    """Return the JSON form of an object: a value of a plain type, or a :class:`ModelForms`.

    Objects of unknown types are returned unchanged.

    Raises:
        NotWritable: a part of the object would be lost.
    """
    while isinstance(item, Enum):
        item = item.value
    if isinstance(item, (datetime, date, time)):
        return item.isoformat()
    if isinstance(item, UUID):
        return str(item)
    if isinstance(item, type):
        return item
    if isinstance(item, BaseModel) or hasattr(type(item), "__pydantic_serializer__"):
        return _forms(item)
    if is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    if isinstance(item, dict):
        return plain_object(item.items())
    if isinstance(item, (list, tuple)):
        return list(item)
    return _plain_scalar(item)


def plain_object(pairs: Any) -> dict[Any, Any]:
    """Return a dict of these pairs. A key of a subclass of ``str`` becomes a ``str``.

    Raises:
        NotWritable: a key occurs twice.
    """
    found: dict[Any, Any] = {}
    for key, part in pairs:
        name = str.__str__(key) if isinstance(key, str) else key
        if name in found:
            raise NotWritable(f"has the key {name!r:.80} twice")
        found[name] = part
    return found


def _plain_scalar(item: Any) -> Any:
    for kind, plain in _SCALARS.items():
        if isinstance(item, kind):
            return plain(item)
    return item


_SCALARS: dict[type, Any] = {str: str.__str__, int: int.__int__, float: float.__float__}


def _forms(model: Any) -> ModelForms:
    kind: Any = type(model)
    if isinstance(model, BaseModel):
        values, written, text = (
            model.model_dump(),
            model.model_dump(mode="json"),
            model.model_dump_json(),
        )
    else:
        write = kind.__pydantic_serializer__
        values, written, text = (
            write.to_python(model),
            write.to_python(model, mode="json"),
            write.to_json(model),
        )
    return ModelForms(values, written, _repeated_in(text), _has_json_serializers(kind))


def _repeated_in(text: str | bytes) -> str | None:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            repeated.append(repeated_key(name for name, _ in pairs))

    json.loads(text, object_pairs_hook=look)
    return repeated[0] if repeated else None


@lru_cache(maxsize=256)
def _has_json_serializers(kind: Hashable) -> bool:
    """Return whether a part of a model has a serializer with ``when_used="json"``."""
    model: Any = kind
    ahead = [model.__pydantic_core_schema__]
    while ahead:
        part = ahead.pop()
        if isinstance(part, dict):
            if str(part.get("when_used", "")).startswith("json"):
                return True
            ahead.extend(part.values())
        elif isinstance(part, (list, tuple)):
            ahead.extend(part)
    return False
