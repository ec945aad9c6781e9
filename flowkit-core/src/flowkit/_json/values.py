"""Python values that users may pass: in graphs, params, inputs, results, artifacts and vars.

A value is written as JSON, so a reader gets JSON's types back.

- Accepted unchanged: strings, booleans, finite numbers (integers of up to 1,024 bits), None, lists,
  and dicts whose keys are strings.
- Converted: tuples to lists, members of an enum to their value, dataclasses and pydantic models to
  objects, and ``datetime``, ``date``, ``time`` (ISO 8601) and ``UUID`` to strings. The values
  inside of a model or dataclass follow the same rules. A serializer of the model decides what is
  written.
- Refused: sets, bytes, other objects, NaN, infinities, text with lone surrogates, and keys that are
  not strings, because ``1`` and ``"1"`` would become one key. Also an object that raises when it is
  read.

One cheap pass accepts the usual value. Only a value that is not plain is examined part by part.
"""

from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._json.limits import MAX_INTEGER_BITS, MAX_VALUE_BYTES, MAX_VALUE_LEVELS
from flowkit._json.python_objects import PLAIN_TYPES, ModelForms, NotWritable, read_object
from flowkit._text.redaction import shortened
from flowkit._user_code.containment import contained, error_text

Path = tuple[str | int, ...]


_ADVICE = " (in YAML, write 'on', 'off', 'yes' and 'no' in quotes)"


class TooLarge(Exception):
    """A limit is exceeded. The check ends at once; the message is the sentence for the user."""


class NotJson(ValueError):
    """A value is not accepted. The message names the value, its place and the reason."""


def json_copy(
    value: Any, what: str, *, max_bytes: int = MAX_VALUE_BYTES, max_levels: int = MAX_VALUE_LEVELS
) -> Any:
    """Return a copy of ``value`` as a reader of its JSON gets it. ``what`` names it in errors.

    Raises:
        NotJson: a part of it is not accepted, or it is too large or nested too deeply.
    """
    try:
        if not is_plain(value, what, max_bytes=max_bytes, max_levels=max_levels):
            value, problems = clean(value, what, max_bytes=max_bytes, max_levels=max_levels)
            if problems:
                path, reason = problems[0]
                more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
                raise NotJson(
                    f"{what} is not JSON: {f'{place(path)} ' if path else 'it '}{reason}{more}"
                )
        return plain_copy(value, what, max_bytes=max_bytes)
    except TooLarge as error:
        raise NotJson(str(error)) from None


def wrong_key(key: Any) -> str:
    """Return the key of an object that is no string, with what is wrong with it."""
    advice = _ADVICE if isinstance(key, bool) else ""
    return f"the key {short(key)}, which is {kind_of(key)}; keys are strings{advice}"


def plain_copy(value: Any, what: str, *, max_bytes: int) -> Any:
    """Return a copy of a value that is plain or clean, as a reader of its JSON gets it.

    Raises:
        TooLarge: it takes more than ``max_bytes`` bytes of JSON.
    """
    data = to_json(value)
    if len(data) > max_bytes:
        raise _too_large(what, max_bytes)
    return from_json(data)


def is_plain(value: Any, what: str, *, max_bytes: int, max_levels: int) -> bool:
    """Return whether ``value`` consists of JSON's own types and is flat enough.

    A part that is shared counts each time it occurs.

    Raises:
        TooLarge: it takes more than ``max_bytes`` bytes of JSON in any case.
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
                below.extend(_parts_of(item))
            if size + 2 * len(below) > max_bytes:
                raise _too_large(what, max_bytes)
        if not below:
            return plain
        size += 2 * len(below)
        level = below
    return False


def _parts_of(item: Any) -> Iterable[Any]:
    """Return the parts of an instance of a subclass of ``dict``, ``list`` or ``tuple``.

    No code of that class runs.
    """
    kind = type(item)
    if issubclass(kind, dict):
        return dict.values(item)
    return (
        list.__iter__(item)
        if issubclass(kind, list)
        else tuple.__iter__(item)
        if issubclass(kind, tuple)
        else ()
    )


def clean(
    value: Any, what: str, *, max_bytes: int, max_levels: int
) -> tuple[Any, list[tuple[Path, str]]]:
    """Return a plain copy of ``value`` without the parts that are not accepted, and their faults.

    Each fault is the path of such a part and the reason.

    Raises:
        TooLarge: it is nested more than ``max_levels`` deep, or takes more than ``max_bytes``
            bytes of JSON in any case.
    """
    copier = _Copier(what, max_bytes=max_bytes, max_levels=max_levels)
    return copier.copied(value, ()), copier.problems


class _Copier:
    def __init__(self, what: str, *, max_bytes: int, max_levels: int) -> None:
        self.problems: list[tuple[Path, str]] = []
        self._what = what
        self._max_bytes = max_bytes
        self._max_levels = max_levels
        self._parts = 0

    def copied(self, item: Any, path: Path) -> Any:
        """Return a plain copy of a part, or None if it is not accepted."""
        self._parts += 1
        if 2 * self._parts > self._max_bytes:
            raise _too_large(self._what, self._max_bytes)
        if type(item) not in PLAIN_TYPES:
            try:
                whole, item = item, contained(read_object, item)
            except NotWritable as error:
                return self._refuse(path, f"is {kind_of(item)} that {error}")
            except Exception as error:
                return self._refuse(
                    path, f"is {kind_of(item)} that cannot be read: {error_text(error, most=400)}"
                )
            if type(item) is ModelForms:
                return self._written(kind_of(whole), item, path)
        kind = type(item)
        if kind in _CONTAINERS and item and len(path) >= self._max_levels:
            raise TooLarge(
                f"{place(path[:4]) or self._what}…: values are nested more than {self._max_levels}"
                " levels deep; make it flatter"
            )
        if kind is dict:
            return self._object(item, path)
        if kind in _CONTAINERS:
            return [self.copied(part, (*path, number)) for number, part in enumerate(item)]
        if (reason := _why_not(item)) is not None:
            return self._refuse(path, reason)
        return item

    def _object(self, item: dict[Any, Any], path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, part in item.items():
            if not issubclass(type(key), str):
                self._refuse(
                    path,
                    f"has {wrong_key(key)}",
                )
                continue
            name = str.__str__(key)
            if not is_unicode(name):
                self._refuse(path, f"has the key {short(name)}, which is not valid Unicode")
            elif name in found:
                self._refuse(path, f"has the key {short(name)} twice")
            else:
                found[name] = self.copied(part, (*path, name))
        return found

    def _written(self, kind: str, model: ModelForms, path: Path) -> Any:
        """Check the values of a model by the same rules, and return its written form."""
        before, parts = len(self.problems), self._parts
        self.copied(model.values, path)
        self._parts = parts
        if model.has_json_serializers:
            self.problems[before:] = [
                problem for problem in self.problems[before:] if problem[1].endswith(_NOT_FINITE)
            ]
        if len(self.problems) > before:
            return None
        if model.repeated is not None:
            return self._refuse(
                path, f"is {kind} that writes the key {short(model.repeated)} twice"
            )
        return self.copied(model.written, path)

    def _refuse(self, path: Path, reason: str) -> None:
        self.problems.append((path, reason))


_CONTAINERS = frozenset({dict, list, tuple})
_NOT_FINITE = "which is not a finite number"
_NOT_UNICODE = "which is not valid Unicode (it has a lone surrogate)"


def _why_not(item: Any) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return None if is_unicode(item) else f"is {short(item)}, {_NOT_UNICODE}"
    if isinstance(item, int):
        return None if item.bit_length() <= MAX_INTEGER_BITS else "is a number of too many digits"
    if isinstance(item, float):
        return None if item - item == 0.0 else f"is {item}, {_NOT_FINITE}"
    return (
        f"is {kind_of(item)}, which JSON cannot carry; write it as a string, a number, a list or an"
        " object"
    )


def _too_large(what: str, max_bytes: int) -> TooLarge:
    return TooLarge(
        f"{what} is larger than {max_bytes} bytes; put large data elsewhere and pass a reference"
        " to it"
    )


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded. A text with a lone surrogate cannot."""
    if text.isascii():
        return True
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
    """Return JSON's name for a value's type, or the name of the Python type."""
    name = type(item).__name__
    return _KINDS.get(name) or f"a Python {shortened(name)}"


def short(item: Any) -> str:
    """Return a value as an error text shows it, cut to a limited length."""
    if isinstance(item, str):
        return repr(shortened(item))
    if isinstance(item, (bool, int, float)) and not (
        isinstance(item, int) and item.bit_length() > 200
    ):
        return repr(item)
    return kind_of(item)


def place(path: Path) -> str:
    """Return a path as an error text shows it: ``io.input_inline.items[3]``."""
    text = ""
    for step in path:
        text += (
            f"[{step}]"
            if isinstance(step, int)
            else f".{short(step)[1:-1]}"
            if text
            else short(step)[1:-1]
        )
    return text
