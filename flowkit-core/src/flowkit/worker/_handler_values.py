"""Checks of the values that handlers return, before they are stored or sent."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from flowkit._json.python_objects import PLAIN_TYPES, NotWritable, plain_object, read_object
from flowkit._json.values import NotJson, json_copy, short
from flowkit._text.redaction import shortened
from flowkit._user_code.containment import contained, error_text
from flowkit.errors import NodeFailure

_SAFE_INT = 2**63
_SHOWN_BITS = 128

Numbers = dict[str, float | int]


def bad_result(message: str) -> NodeFailure:
    """Return the failure of a handler that returned an invalid value."""
    return NodeFailure(message, reason_code="bad_result", permanent=True)


def json_value(value: Any, what: str) -> Any:
    """Return a copy of ``value`` as its readers get it from JSON.

    :mod:`flowkit._json.values` lists the accepted types.

    Raises:
        NodeFailure: ``bad_result``; a part of the value is not accepted.
    """
    if (
        value is None
        or value is True
        or value is False
        or (type(value) is int and -_SAFE_INT < value < _SAFE_INT)
    ):
        return value
    try:
        return json_copy(value, what)
    except NotJson as error:
        raise bad_result(str(error)) from None


def json_object(value: Any, what: str) -> dict[str, Any] | None:
    """Return a copy of a value that must be a JSON object or None."""
    if value is None:
        return None
    copy = json_value(value, what)
    if not isinstance(copy, dict):
        raise bad_result(f"{what} must be a JSON object or None, not {type(value).__name__}")
    return copy


def numbers(metrics: Any, what: str) -> Numbers:
    """Return a copy of metrics, which are finite numbers by name.

    Raises:
        NodeFailure: ``bad_result``; a name or a number is invalid.
    """
    if metrics is None:
        return {}
    try:
        found = contained(_by_name, metrics)
    except NotWritable as error:
        raise bad_result(f"{what} cannot be stored: it {error}") from None
    except Exception as error:
        raise bad_result(f"{what} cannot be read: {error_text(error, most=400)}") from None
    if found is None:
        raise bad_result(f"{what} must be numbers by name, not {shortened(type(metrics).__name__)}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, int | float) or not is_finite(value):
            raise bad_result(
                f"{what} must be finite numbers by name; {short(name)} is {_shown(value)}"
            )
    return {name: int(value) if isinstance(value, bool) else value for name, value in found.items()}


def _by_name(metrics: Any) -> dict[Any, Any] | None:
    """Return the content of metrics, or None if they are not a mapping."""
    if not metrics:
        return {}
    if not isinstance(metrics, Mapping):
        return None
    return {
        name: value if type(value) in PLAIN_TYPES else read_object(value)
        for name, value in plain_object(metrics.items()).items()
    }


def is_finite(value: float) -> bool:
    """Return whether a number is finite as a float: a reader may convert an integer to one."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    # Python refuses to convert very large integers to text.
    return (
        f"an integer of {value.bit_length()} bits"
        if isinstance(value, int) and value.bit_length() > _SHOWN_BITS
        else short(value)
    )


def add_numbers(total: Numbers, more: Mapping[str, float | int]) -> None:
    """Add numbers by name. A sum above the range of floats becomes infinity."""
    for name, value in more.items():
        try:
            total[name] = total.get(name, 0) + value
        except OverflowError:
            total[name] = math.inf


def dump(value: Any) -> bytes:
    """Return the JSON bytes of a value from :func:`json_value` or :func:`numbers`."""
    return to_json(value)
