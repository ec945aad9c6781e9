"""Values of expressions: the Python types of CEL types, and equality.

JSON values are used as they are and never copied. Keys of maps are strings, integers or
:class:`BoolKey`, because Python treats ``True`` and ``1`` as the same key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from flowkit._expressions.budget import Budget
from flowkit._expressions.errors import EvaluationError

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_MISSING: Final = object()

Overloads = dict[tuple[type, ...] | None, Callable[..., Any]]
"""Implementations of a function by the types of its arguments. The budget is the first argument."""
ANY: Final = None
"""Key for one argument of any type."""


class UInt(int):
    """Unsigned 64-bit integer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """Point in time, in nanoseconds since 1970."""

    nanos: int


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """Length of time in nanoseconds."""

    nanos: int


@dataclass(frozen=True, slots=True)
class Type:
    """Type as a value, as ``type()`` returns it."""

    name: str


class BoolKey(Enum):
    """Keys ``true`` and ``false`` of a map."""

    TRUE = True
    FALSE = False


TYPES: dict[type, Type] = {
    type(None): Type("null_type"),
    bool: Type("bool"),
    int: Type("int"),
    UInt: Type("uint"),
    float: Type("double"),
    str: Type("string"),
    bytes: Type("bytes"),
    list: Type("list"),
    dict: Type("map"),
    Timestamp: Type("google.protobuf.Timestamp"),
    Duration: Type("google.protobuf.Duration"),
    Type: Type("type"),
}
SHORT_NAMES = {
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.Duration": "duration",
    "null_type": "null",
}
NUMBERS = frozenset({int, UInt, float})
ORDERED = frozenset({bool, str, bytes, Timestamp, Duration})


def type_name(value: object) -> str:
    """Return the name of a value's type for error texts."""
    name = TYPES[type(value)].name
    return SHORT_NAMES.get(name, name)


def no_overload(what: str, *values: object) -> EvaluationError:
    """Return the error of an operator or function that does not accept values of these types."""
    return EvaluationError(f"{what} is not defined for {' and '.join(map(type_name, values))}")


def key_of(value: Any) -> Any:
    """Return the key under which a map stores a value.

    Raises:
        EvaluationError: a value of this type cannot be a key.
    """
    kind = type(value)
    if kind is str or kind is int or kind is UInt:
        return value
    if kind is bool:
        return BoolKey(value)
    raise EvaluationError(
        f"a map key must be a string, an integer or a bool, not {type_name(value)}"
    )


def lookup_key(value: Any) -> Any:
    """Return the key to look up for a value.

    Unlike in :func:`key_of`, a double with an integral value finds that integer.
    """
    return int(value) if type(value) is float and value.is_integer() else key_of(value)


def charge_key(key: Any, budget: Budget) -> None:
    """Charge a lookup in a map. A long key is compared with the stored key."""
    if type(key) is str:
        budget.handle_text(len(key))


def value_of(key: Any) -> Any:
    """Return the value that a key represents."""
    return key.value if type(key) is BoolKey else key


def equal(left: Any, right: Any, budget: Budget) -> bool:
    """Compare two values of any types.

    Numbers are compared by value, lists and maps by their elements.
    """
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        return bool(left == right)
    if kind is not other:
        return False
    if kind is list:
        return len(left) == len(right) and all(
            _elements_equal(a, b, budget) for a, b in zip(left, right, strict=True)
        )
    if kind is dict:
        return len(left) == len(right) and all(
            _elements_equal(a, right.get(key, _MISSING), budget) for key, a in left.items()
        )
    if kind is str or kind is bytes:
        budget.handle_text(len(left))
    return bool(left == right)


def _elements_equal(left: Any, right: Any, budget: Budget) -> bool:
    budget.spend(3)
    return right is not _MISSING and equal(left, right, budget)


def contains(container: Any, value: Any, budget: Budget) -> bool:
    """Evaluate ``value in container``."""
    if type(container) is list:
        return any(_elements_equal(value, item, budget) for item in container)
    if isinstance(container, Mapping):
        try:
            key = lookup_key(value)
        except EvaluationError:
            return False
        charge_key(key, budget)
        return key in container
    raise no_overload("in", value, container)
