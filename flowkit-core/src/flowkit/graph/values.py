"""Which Python values are accepted wherever users give one: graphs, params, inputs, results, artifacts, progress, vars.

A value is written as JSON, so a reader gets JSON's types back.

- Accepted as they are: strings, booleans, finite numbers (integers of up to 1,024 bits), None, lists, and dicts whose keys are strings.
- Accepted as something else: tuples as lists, members of an enum as their value, dataclasses and pydantic models as objects, and
  ``datetime``, ``date``, ``time`` (ISO 8601) and ``UUID`` as strings.
- Refused: sets, bytes, other objects, NaN, infinities, text with lone surrogates, and keys that are not strings, since ``1`` and ``"1"``
  would become one key.

One cheap pass accepts the usual value; only a value that is not plain is examined part by part.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from itertools import count
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from flowkit._containment import error_text

Path = tuple[str | int, ...]

MAX_INTEGER_BITS = 1_024
MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Bytes of JSON of one value that is not part of a graph. Stores and buses have lower limits of their own."""
MAX_VALUE_LEVELS = 128
"""Levels of nested lists and objects of one value; readers of JSON stop not far above."""


class TooLarge(Exception):
    """A limit is exceeded: nothing else is examined. The message is the fault's sentence."""


class NotJson(ValueError):
    """A value is not accepted; the message says what it is, where, and why."""


def json_copy(value: Any, what: str, *, max_bytes: int = MAX_VALUE_BYTES, max_levels: int = MAX_VALUE_LEVELS) -> Any:
    """Return ``value`` as a reader of its JSON gets it, sharing nothing with ``value``. ``what`` names it in errors.

    Raises:
        NotJson: a part of it is not accepted, or it is too large or nested too deeply.
    """
    try:
        if not is_plain(value, what, max_bytes=max_bytes, max_levels=max_levels):
            value, problems = clean(value, what, max_bytes=max_bytes, max_levels=max_levels)
            if problems:
                path, reason = problems[0]
                more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
                raise NotJson(f"{what} is not JSON: {f'{place(path)} ' if path else 'it '}{reason}{more}")
        data = to_json(value)
        if len(data) > max_bytes:
            raise _too_large(what, max_bytes)
    except TooLarge as error:
        raise NotJson(str(error)) from None
    return from_json(data)


def is_plain(value: Any, what: str, *, max_bytes: int, max_levels: int) -> bool:
    """Whether ``value`` consists of JSON's own types and is flat enough. A part that is shared counts each time it occurs.

    Raises:
        TooLarge: it certainly takes more than ``max_bytes`` bytes of JSON.
    """
    plain = True
    level = [value]
    size = 0
    for _ in range(max_levels + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                size += len(item)
                if not item.isascii():
                    plain = plain and is_unicode(item)
            elif kind is dict:
                for key in item:
                    if type(key) is not str or not (key.isascii() or is_unicode(key)):
                        plain = False
                    else:
                        size += len(key)
                below.extend(item.values())
            elif kind is list or kind is tuple:
                below.extend(item)
            elif kind is float:
                if item - item != 0.0:
                    plain = False
            elif kind is int:
                if item.bit_length() > MAX_INTEGER_BITS:
                    plain = False
            elif item is not None and kind is not bool:
                plain = False
                below.extend(item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ())
            if size + 2 * len(below) > max_bytes:
                raise _too_large(what, max_bytes)
        if not below:
            return plain
        size += 2 * len(below)
        level = below
    return False


def clean(value: Any, what: str, *, max_bytes: int, max_levels: int) -> tuple[Any, list[tuple[Path, str]]]:
    """Return a plain copy of ``value`` without the parts that are not accepted, and for each of those its path and the reason.

    Raises:
        TooLarge: it is nested more than ``max_levels`` deep, or certainly takes more than ``max_bytes`` bytes of JSON.
    """
    problems: list[tuple[Path, str]] = []
    parts = count()

    def copied(item: Any, path: Path) -> Any:
        if 2 * next(parts) > max_bytes:
            raise _too_large(what, max_bytes)
        item = _as_json_type(item)
        if isinstance(item, (dict, list, tuple)) and item and len(path) >= max_levels:
            raise TooLarge(f"{place(path[:4]) or what}…: values are nested more than {max_levels} levels deep; make it flatter")
        if isinstance(item, dict):
            return dict(pairs(item, path))
        if isinstance(item, (list, tuple)):
            return [copied(part, (*path, number)) for number, part in enumerate(item)]
        if (reason := _why_not(item)) is not None:
            problems.append((path, reason))
            return None
        return item

    def pairs(item: dict[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
        for key, part in item.items():
            if not isinstance(key, str):
                problems.append((path, f"has the key {short(key)}, which is {kind_of(key)}; keys are strings"))
            elif not is_unicode(key):
                problems.append((path, f"has the key {short(key)}, which is not valid Unicode"))
            else:
                yield key, copied(part, (*path, key))

    return copied(value, ()), problems


def _as_json_type(item: Any) -> Any:
    """Return what a value of a type that JSON does not have is written as; other values as they are."""
    while isinstance(item, Enum):
        item = item.value
    if isinstance(item, (datetime, date, time)):
        return item.isoformat()
    if isinstance(item, UUID):
        return str(item)
    if isinstance(item, BaseModel):
        return _dumped(item)
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    return item


def _dumped(model: BaseModel) -> Any:
    name = type(model).__name__
    try:
        if (loss := _loss_of(model.model_dump())) is not None:
            return _Unwritable(f"is a {name} that {loss}")
        return model.model_dump(mode="json")
    except Exception as error:  # of a serializer that the model's author wrote
        return _Unwritable(f"is a {name} that cannot be written: {error_text(error)}"[:500])


def _loss_of(value: Any) -> str | None:
    """Return what pydantic would write of a model's values otherwise than they are: keys that collide, and numbers that JSON lacks."""
    ahead = [value]
    while ahead:
        item = ahead.pop()
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item) and len(from_json(to_json(dict.fromkeys(item)))) != len(item):
                return "has keys that are the same in JSON; keys are strings"
            ahead.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            ahead.extend(item)
        elif isinstance(item, float) and item - item != 0.0:
            return f"has {item}, which is not a finite number"
    return None


class _Unwritable:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _why_not(item: Any) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return None if is_unicode(item) else f"{short(item)} is not valid Unicode (it has a lone surrogate)"
    if isinstance(item, int):
        return None if item.bit_length() <= MAX_INTEGER_BITS else "is a number of too many digits"
    if isinstance(item, float):
        return None if item - item == 0.0 else f"is {item}, which is not a finite number"
    if isinstance(item, _Unwritable):
        return item.reason
    return f"is {kind_of(item)}, which JSON cannot carry; write it as a string, a number, a list or an object"


def _too_large(what: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"{what} is larger than {max_bytes} bytes; put large data elsewhere and pass a reference to it")


def is_unicode(text: str) -> bool:
    """Whether a text can be written: one with a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_KINDS = {
    "str": "a string",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
    "NoneType": "null",
}


def kind_of(item: Any) -> str:
    """What JSON calls a value's type; for others the name of the Python type."""
    name = type(item).__name__
    return _KINDS.get(name) or f"a Python {name}"


def short(item: Any) -> str:
    """A value as it is shown in a sentence, cut to a bearable length."""
    if isinstance(item, str):
        return repr(item if len(item) <= 80 else item[:79] + "…")
    if isinstance(item, (bool, int, float)) and not (isinstance(item, int) and item.bit_length() > 200):
        return repr(item)
    return kind_of(item)


def place(path: Path) -> str:
    """A path as it is written in a sentence: ``io.input_inline.items[3]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{short(step)[1:-1]}" if text else short(step)[1:-1]
    return text
