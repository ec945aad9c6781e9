"""Conversion of expression values from and to the JSON of the conformance cases."""

from typing import Any

from flowkit._expressions import Budget, Duration, Timestamp, Type, UInt, compile_expression
from flowkit._expressions.values import key_of

_READERS: dict[str, Any] = {
    "int": int,
    "uint": lambda text: UInt(int(text)),
    "double": float,
    "bytes": bytes.fromhex,
    "type": Type,
    "timestamp": lambda nanos: Timestamp(int(nanos)),
    "duration": lambda nanos: Duration(int(nanos)),
    "list": lambda items: [read(item) for item in items],
    "map": lambda entries: {key_of(read(key)): read(value) for key, value in entries},
}


def read(data: Any) -> Any:
    """Return the value that a case writes as ``{type: content}`` or directly."""
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    return _READERS[kind](content)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same type; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right) or (left != left and right != right)


def evaluate(source: str, *, steps: int = 10_000, memory: int = 1_000_000, **scope: Any) -> Any:
    """Return the value of an expression over these names."""
    return compile_expression(source).evaluate(scope, Budget(steps, memory))
