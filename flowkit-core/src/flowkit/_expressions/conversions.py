"""Functions that convert between types."""

import json
import math
import re
from typing import Any

from flowkit._expressions.budget import CONVERSION_STEPS, Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.times import (
    SECOND,
    duration_text,
    parse_duration,
    parse_timestamp,
    timestamp_of_seconds,
    timestamp_text,
)
from flowkit._expressions.values import (
    ANY,
    INT_MAX,
    INT_MIN,
    TYPES,
    UINT_MAX,
    Duration,
    Overloads,
    Timestamp,
    Type,
    UInt,
    value_of,
)

MAX_NUMBER = 64
"""Maximum length of a string that is parsed as a number."""
MAX_BITS = 10_000
"""Maximum size of an integer that is formatted; integers from JSON can be longer."""
BITS_A_STEP = 400
"""Bits of an integer that are formatted in a step; the time grows with the square of the length."""
_INT = re.compile(r"[+-]?\d+", re.ASCII)
_DOUBLE = re.compile(
    r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d{1,5})?|\.\d+(?:[eE][+-]?\d{1,5})?|inf(?:inity)?|nan)",
    re.ASCII | re.IGNORECASE,
)
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}


def _whole(value: Any, low: int, high: int, name: str) -> int:
    number = int(value)
    if low <= number <= high:
        return number
    raise EvaluationError(f"the number is out of range for {name}")


def _from_double(value: float, low: int, high: int, name: str) -> int:
    if low < value < high or value == 0:
        return int(value)
    raise EvaluationError(f"the number is out of range for {name}")


def _parsed(text: str, pattern: re.Pattern[str], what: str) -> str:
    if len(text) > MAX_NUMBER or pattern.fullmatch(text) is None:
        raise EvaluationError(f"the string is not {what}")
    return text


def _to_int(budget: Budget, value: Any) -> int:
    return _whole(value, INT_MIN, INT_MAX, "an int")


def _text_to_int(budget: Budget, text: str) -> int:
    budget.spend(CONVERSION_STEPS)
    return _whole(_parsed(text, _INT, "an integer"), INT_MIN, INT_MAX, "an int")


def _to_uint(budget: Budget, value: Any) -> UInt:
    return UInt(_whole(value, 0, UINT_MAX, "a uint"))


def _text_to_uint(budget: Budget, text: str) -> UInt:
    budget.spend(CONVERSION_STEPS)
    return UInt(_whole(_parsed(text, _INT, "an integer"), 0, UINT_MAX, "a uint"))


def _to_double(budget: Budget, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise EvaluationError("the number is out of range for a double") from None


def _text_to_double(budget: Budget, text: str) -> float:
    budget.spend(CONVERSION_STEPS)
    return float(_parsed(text, _DOUBLE, "a number"))


def _text_to_bool(budget: Budget, text: str) -> bool:
    if text in _BOOLS:
        return _BOOLS[text]
    raise EvaluationError("the string must be 'true' or 'false'")


def _to_bytes(budget: Budget, text: str) -> bytes:
    budget.scan_text(len(text))
    budget.make_text(len(text))
    return text.encode("utf-8", "surrogatepass")


def _decode(budget: Budget, data: bytes) -> str:
    budget.scan_text(len(data))
    budget.make_text(len(data))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise EvaluationError("the bytes are not valid UTF-8") from None


def number_text(value: float) -> str:
    """Format a double. One with an integral value below 10^21 looks like an integer."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e21 else repr(value)


def text_of(budget: Budget, value: Any) -> str:
    """Convert a value to a string. Values other than strings, bytes and times become JSON."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bytes:
        return _decode(budget, value)
    if kind is Timestamp or kind is Duration:
        budget.spend(2 * CONVERSION_STEPS)
        return timestamp_text(value) if kind is Timestamp else duration_text(value)
    if kind is Type:
        return str(value.name)
    pieces: list[str] = []
    _write(value, pieces, budget)
    return "".join(pieces)


def _write(value: Any, pieces: list[str], budget: Budget) -> None:
    budget.make_elements(1)
    kind = type(value)
    if kind is dict:
        separator = "{"
        for key, item in value.items():
            pieces.append(separator)
            _write(text_of(budget, value_of(key)), pieces, budget)
            pieces.append(":")
            _write(item, pieces, budget)
            separator = ","
        pieces.append("}" if value else "{}")
    elif kind is list:
        separator = "["
        for item in value:
            pieces.append(separator)
            _write(item, pieces, budget)
            separator = ","
        pieces.append("]" if value else "[]")
    elif value is None or kind is bool:
        pieces.append({None: "null", True: "true", False: "false"}[value])
    elif kind is float:
        text = _double_text(budget, value)
        pieces.append(text if math.isfinite(value) else f'"{text}"')
    elif kind is int or kind is UInt:
        if value.bit_length() > MAX_BITS:
            raise EvaluationError("the number is too long to be formatted")
        budget.spend(CONVERSION_STEPS // 2 + (value.bit_length() // BITS_A_STEP) ** 2)
        budget.make_text(value.bit_length())
        pieces.append(str(int(value)))
    else:
        text = text_of(budget, value)
        budget.scan_text(len(text))
        budget.spend(CONVERSION_STEPS // 2)
        budget.make_text(2 * len(text))
        pieces.append(json.dumps(text, ensure_ascii=False))


def _double_text(budget: Budget, value: float) -> str:
    budget.spend(CONVERSION_STEPS)
    return number_text(value)


def _type_of(budget: Budget, value: Any) -> Type:
    return TYPES[type(value)]


def _same(budget: Budget, value: Any) -> Any:
    return value


FUNCTIONS: dict[str, Overloads] = {
    "int": {
        (int,): _to_int,
        (UInt,): _to_int,
        (float,): lambda budget, value: _from_double(value, INT_MIN, INT_MAX, "an int"),
        (str,): _text_to_int,
        (Timestamp,): lambda budget, value: value.nanos // SECOND,
        (Duration,): lambda budget, value: (
            abs(value.nanos) // SECOND * (-1 if value.nanos < 0 else 1)
        ),
    },
    "uint": {
        (int,): _to_uint,
        (UInt,): _to_uint,
        (float,): lambda budget, value: UInt(_from_double(value, 0, UINT_MAX, "a uint")),
        (str,): _text_to_uint,
    },
    "double": {
        (int,): _to_double,
        (UInt,): _to_double,
        (float,): _to_double,
        (str,): _text_to_double,
    },
    "bool": {(bool,): _same, (str,): _text_to_bool},
    "bytes": {(bytes,): _same, (str,): _to_bytes},
    "string": {(float,): _double_text, ANY: text_of},
    "type": {ANY: _type_of},
    "dyn": {ANY: _same},
    "timestamp": {
        (Timestamp,): _same,
        (str,): parse_timestamp,
        (int,): lambda budget, seconds: timestamp_of_seconds(seconds),
    },
    "duration": {(Duration,): _same, (str,): parse_duration},
}
