"""Texts of the errors that pydantic finds in values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_Context = Mapping[str, Any]


def _is_no_time(_: _Context) -> str:
    return "must be a time with a zone, such as 2026-11-27T10:00:00Z"


_RULES: Mapping[str, Callable[[_Context], str]] = {
    "string_type": lambda _: "must be a string",
    "string_unicode": lambda _: "must be valid Unicode",
    "bool_type": lambda _: "must be true or false",
    "bool_parsing": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "float_parsing": lambda _: "must be a number",
    "finite_number": lambda _: "must be a finite number",
    "tuple_type": lambda _: "must be a list",
    "list_type": lambda _: "must be a list",
    "set_type": lambda _: "must be a list",
    "frozen_set_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "model_attributes_type": lambda _: "must be an object",
    "string_too_short": lambda _: "must not be empty",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: f"must match the pattern {context['pattern']}",
    "greater_than": lambda context: f"must be above {_number(context['gt'])}",
    "greater_than_equal": lambda context: f"must be at least {_number(context['ge'])}",
    "less_than": lambda context: f"must be below {_number(context['lt'])}",
    "less_than_equal": lambda context: f"must be at most {_number(context['le'])}",
    "literal_error": lambda context: f"must be {context['expected']}",
    "enum": lambda context: f"must be {context['expected']}",
    "too_short": lambda context: f"must have at least {_items(context['min_length'])}",
    "too_long": lambda context: f"must have at most {_items(context['max_length'])}",
    "datetime_type": _is_no_time,
    "datetime_parsing": _is_no_time,
    "datetime_from_date_parsing": _is_no_time,
    "datetime_object_invalid": _is_no_time,
    "timezone_aware": _is_no_time,
}

_LIMITS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def rule_of(error: Mapping[str, Any]) -> str | None:
    """Return the rule that a value breaks: "must be …", None if this is not one of the types."""
    if error["type"] in _LIMITS and _is_nan(error.get("input")):
        return "must be a number"  # NaN is on no side of the limit
    rule = _RULES.get(error["type"])
    return None if rule is None else rule(error.get("ctx", {}))


def errors_in(error: ValidationError, value: Any) -> list[ErrorDetails]:
    """Return the errors that pydantic found in a value. Their ``loc`` is a path in the value."""
    found = error.errors(include_url=False)
    for each in found:
        each["loc"] = path_in(value, each)
    return found


def path_in(value: Any, error: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return the path of an error in a value, without the names of types in it.

    Where a type is a union, such as that of all JSON values, pydantic adds the name of the member
    to the path: ``payload.dict.a.float`` for the number in ``payload.a``.
    """
    path = tuple(error["loc"])
    end = len(path)
    if path[-1:] == ("[key]",):
        end -= 2  # the wrong key, which may be none of JSON
    elif error["type"] == "missing":
        end -= 1
    first: tuple[int | str, ...] | None = None
    for found, item in _walks(value, path[:end], set()):
        if item is error.get("input"):
            return found + path[end:]
        first = found if first is None else first
    return (first or ()) + path[end:]


def _walks(
    value: Any, path: Sequence[int | str], seen: set[tuple[int, int]]
) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Yield the paths in a value that leave out steps of a path, and the items at their ends.

    The first path has all steps that exist.
    """
    if (id(value), len(path)) in seen:
        return
    seen.add((id(value), len(path)))
    if not path:
        yield (), value
        return
    step, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        below = [value[step]] if step in value else []
    elif isinstance(value, list | tuple):
        below = [value[step]] if isinstance(step, int) and step < len(value) else []
    else:
        below = [] if value is None or isinstance(value, str | bytes | int | float) else [value]
    for item in below:
        yield from (((step, *found), end) for found, end in _walks(item, rest, seen))
    yield from _walks(value, rest, seen)


def message_of(error: Mapping[str, Any]) -> str:
    """Return the message of one of the errors of a ``ValidationError``. That of a validator is the
    text that the validator raised, without the prefix that pydantic adds.
    """
    text = str(error["msg"])
    return text.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def plain_message_of(error: Mapping[str, Any]) -> str:
    """Return the message of an error about a field of FlowKit, in FlowKit's words."""
    if error["type"] == "missing":
        return "it is missing"
    if error["type"] == "extra_forbidden":
        return "there is no such field"
    return rule_of(error) or message_of(error)


def _is_nan(value: Any) -> bool:
    try:
        return isinstance(value, str | float) and isnan(float(value))
    except ValueError:
        return False


def _items(number: int) -> str:
    return f"{number} item{'' if number == 1 else 's'}"


def _number(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else str(limit)
