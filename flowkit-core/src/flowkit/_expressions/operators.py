"""Binary operators: arithmetic with 64-bit ranges, and comparisons.

An int and a double are combined as doubles.
"""

import math
from collections.abc import Callable
from typing import Any

from flowkit._expressions.budget import Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.times import plus as time_plus
from flowkit._expressions.times import time_minus
from flowkit._expressions.values import (
    INT_MAX,
    INT_MIN,
    NUMBERS,
    ORDERED,
    UINT_MAX,
    UInt,
    contains,
    equal,
    no_overload,
)

Operator = Callable[[Any, Any, Budget], Any]


def _in_range(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvaluationError("the result is out of range for an int")


def _in_64_bits(left: int, right: int) -> None:
    """Reject operands of more than 64 bits, which JSON can contain.

    The time to multiply or divide them grows with the square of their length.
    """
    if not (INT_MIN <= left <= UINT_MAX and INT_MIN <= right <= UINT_MAX):
        raise EvaluationError("the operand exceeds 64 bits")


def _unsigned(value: int) -> UInt:
    if 0 <= value <= UINT_MAX:
        return UInt(value)
    raise EvaluationError("the result is out of range for a uint")


def _double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise EvaluationError("the number is out of range for a double") from None


def _mixed(left: type, right: type) -> bool:
    """Tell whether the types are two doubles, or a double and an int."""
    return (left is float and right in (int, float)) or (right is float and left is int)


def add(left: Any, right: Any, budget: Budget) -> Any:
    """Evaluate ``left + right``."""
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return _in_range(left + right)
    if _mixed(kind, other):
        return _double(left) + _double(right)
    if kind is other and (kind is str or kind is bytes):
        budget.make_text(len(left) + len(right))
        return left + right
    if kind is other and kind is list:
        budget.make_elements(len(left) + len(right))
        return left + right
    if kind is other and kind is UInt:
        return _unsigned(int(left) + int(right))
    return time_plus(left, right)


def subtract(left: Any, right: Any, budget: Budget) -> Any:
    """Evaluate ``left - right``."""
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return _in_range(left - right)
    if _mixed(kind, other):
        return _double(left) - _double(right)
    if kind is other and kind is UInt:
        return _unsigned(int(left) - int(right))
    return time_minus(left, right)


def multiply(left: Any, right: Any, budget: Budget) -> Any:
    """Evaluate ``left * right``."""
    kind, other = type(left), type(right)
    if kind is int and other is int:
        _in_64_bits(left, right)
        return _in_range(left * right)
    if _mixed(kind, other):
        return _double(left) * _double(right)
    if kind is other and kind is UInt:
        return _unsigned(int(left) * int(right))
    raise no_overload("*", left, right)


def divide(left: Any, right: Any, budget: Budget) -> Any:
    """Evaluate ``left / right``. The quotient of integers is rounded towards zero."""
    kind, other = type(left), type(right)
    if kind is other and kind in (int, UInt):
        _in_64_bits(left, right)
        quotient = abs(int(left)) // _divisor(right)
        return (
            _unsigned(quotient)
            if kind is UInt
            else _in_range(quotient if (left < 0) == (right < 0) else -quotient)
        )
    if _mixed(kind, other):
        return _divide_doubles(_double(left), _double(right))
    raise no_overload("/", left, right)


def modulo(left: Any, right: Any, budget: Budget) -> Any:
    """Evaluate ``left % right``. The result has the sign of ``left``."""
    kind, other = type(left), type(right)
    if kind is other and kind in (int, UInt):
        _in_64_bits(left, right)
        if (left, right) == (INT_MIN, -1):
            raise EvaluationError("the result is out of range for an int")
        rest = abs(int(left)) % _divisor(right)
        return _unsigned(rest) if kind is UInt else _in_range(rest if left >= 0 else -rest)
    raise no_overload("%", left, right)


def _divisor(value: int) -> int:
    if value == 0:
        raise EvaluationError("division by zero")
    return abs(int(value))


def _divide_doubles(left: float, right: float) -> float:
    if right != 0.0:
        return left / right
    if left == 0.0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def negate(value: Any) -> Any:
    """Evaluate ``-value``."""
    kind = type(value)
    if kind is int:
        return _in_range(-value)
    if kind is float:
        return -value
    raise no_overload("-", value)


def _comparison(symbol: str, compare: Callable[[Any, Any], bool]) -> Operator:
    def run(left: Any, right: Any, budget: Budget) -> bool:
        kind, other = type(left), type(right)
        if kind in NUMBERS and other in NUMBERS:
            return compare(left, right)
        if kind is other and kind in ORDERED:
            if kind is str or kind is bytes:
                budget.handle_text(min(len(left), len(right)))
            return compare(left, right)
        raise no_overload(symbol, left, right)

    return run


OPERATORS: dict[str, Operator] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": modulo,
    "==": equal,
    "!=": lambda left, right, budget: not equal(left, right, budget),
    "<": _comparison("<", lambda left, right: left < right),
    "<=": _comparison("<=", lambda left, right: left <= right),
    ">": _comparison(">", lambda left, right: left > right),
    ">=": _comparison(">=", lambda left, right: left >= right),
    "in": lambda left, right, budget: contains(right, left, budget),
}
