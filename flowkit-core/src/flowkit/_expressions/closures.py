"""Closures that compute the nodes of an expression, built from the closures of their operands.

Each takes the frame of an evaluation: a list of the budget, the values of names and the loop
variables.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flowkit._expressions.budget import ERROR_STEPS, Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.operators import OPERATORS, negate
from flowkit._expressions.values import (
    ANY,
    INT_MIN,
    UINT_MAX,
    Overloads,
    charge_key,
    key_of,
    lookup_key,
    no_overload,
    type_name,
)

Frame = list[Any]
Value = Callable[[Frame], Any]
FREE = frozenset({int, bool, float, type(None)})
"""Types whose values are compared without charge."""

# ---------------------------------------------------------------- fields


def follow(place: int, fields: Sequence[str], position: int) -> Value:
    """Return a closure for a chain of fields of the value at this place in the frame."""

    def run(frame: Frame) -> Any:
        value = frame[place]
        try:
            for name in fields:
                value = value[name]
        except (KeyError, TypeError):
            raise _no_field(value, name).at(position) from None
        return value

    return run


def select(operand: Value, name: str, position: int) -> Value:
    """Return a closure for ``operand.name``."""

    def run(frame: Frame) -> Any:
        value = operand(frame)
        if type(value) is not dict or name not in value:
            raise _no_field(value, name).at(position)
        return value[name]

    return run


def existence(operand: Value, name: str, position: int) -> Value:
    """Return a closure for ``has(operand.name)``."""

    def run(frame: Frame) -> bool:
        value = operand(frame)
        if type(value) is not dict:
            raise _no_field(value, name).at(position)
        return name in value

    return run


def _no_field(value: Any, name: str) -> EvaluationError:
    if type(value) is dict:
        return EvaluationError(f"no such key {name[:80]!r}")
    return EvaluationError(f"{type_name(value)} has no fields, so it has no {name[:80]!r}")


def element(operand: Value, index: Value, position: int) -> Value:
    """Return a closure for ``operand[index]``."""

    def run(frame: Frame) -> Any:
        value, place = operand(frame), index(frame)
        try:
            return _at(value, place, frame[0])
        except EvaluationError as error:
            raise error.at(position) from None

    return run


def _at(value: Any, index: Any, budget: Budget) -> Any:
    key = lookup_key(index)
    if type(value) is dict:
        charge_key(key, budget)
        if key in value:
            return value[key]
        raise EvaluationError(f"no such key {_shown(index)}")
    if type(value) is not list:
        raise no_overload("[]", value, index)
    if not isinstance(key, int):
        raise EvaluationError(f"a list index must be an int, not {type_name(index)}")
    if 0 <= key < len(value):
        return value[key]
    raise EvaluationError(f"index {_shown(index)} is out of range for {len(value)} elements")


def _shown(index: Any) -> str:
    """Format an index for an error text. Integers from JSON can have any length."""
    return (
        repr(index[:80])
        if type(index) is str
        else str(index)
        if INT_MIN <= index <= UINT_MAX
        else "of more than 64 bits"
    )


# ---------------------------------------------------------------- operators


def inversion(operand: Value, count: int, position: int) -> Value:
    """Return a closure for ``!operand`` with ``count`` exclamation marks."""
    odd = count % 2 == 1

    def run(frame: Frame) -> bool:
        value = operand(frame)
        if value is True or value is False:
            return value is not odd
        raise no_overload("!", value).at(position)

    return run


def negation(operand: Value, count: int, position: int) -> Value:
    """Return a closure for ``-operand`` with ``count`` minus signs."""

    def run(frame: Frame) -> Any:
        value = operand(frame)
        try:
            for _ in range(count):
                value = negate(value)
        except EvaluationError as error:
            raise error.at(position) from None
        return value

    return run


def binary(left: Value, symbol: str, position: int, right: Value) -> Value:
    """Return a closure for a binary operator."""
    operator = OPERATORS[symbol]

    def run(frame: Frame) -> Any:
        value, other = left(frame), right(frame)
        try:
            return operator(value, other, frame[0])
        except EvaluationError as error:
            raise error.at(position) from None

    def equals(frame: Frame) -> Any:
        value, other = left(frame), right(frame)
        if type(value) is type(other) and type(value) in FREE:
            return value == other
        return operator(value, other, frame[0])

    return equals if symbol == "==" else run


def chain(left: Value, rest: Sequence[tuple[str, int, Value]]) -> Value:
    """Return a closure for operators of one level, applied from left to right."""
    steps = [(OPERATORS[symbol], position, operand) for symbol, position, operand in rest]

    def run(frame: Frame) -> Any:
        value, budget = left(frame), frame[0]
        for operator, position, operand in steps:
            other = operand(frame)
            try:
                value = operator(value, other, budget)
            except EvaluationError as error:
                raise error.at(position) from None
        return value

    return run


def logic(operands: Sequence[Value], symbol: str, position: int) -> Value:
    """Return a closure for ``&&`` or ``||``.

    An operand that decides the result makes errors of the others irrelevant.
    """
    deciding = symbol == "||"

    def run(frame: Frame) -> bool:
        failure: EvaluationError | None = None
        for operand in operands:
            try:
                value = operand(frame)
            except EvaluationError as error:
                frame[0].spend(ERROR_STEPS)
                failure = failure or error
                continue
            if value is deciding:
                return bool(value)
            if value is not True and value is not False:
                failure = failure or EvaluationError(
                    f"{symbol} needs true or false, not {type_name(value)}", position
                )
        if failure is not None:
            raise failure
        return not deciding

    return run


def choice(arms: Sequence[tuple[Value, int, Value]], otherwise: Value) -> Value:
    """Return a closure for ``condition ? value : … : otherwise``.

    Each arm has the position of its condition.
    """

    def run(frame: Frame) -> Any:
        for condition, position, value in arms:
            chosen = condition(frame)
            if chosen is True:
                return value(frame)
            if chosen is not False:
                raise EvaluationError(f"? needs true or false, not {type_name(chosen)}", position)
        return otherwise(frame)

    return run


# ---------------------------------------------------------------- collections and calls


def list_of(items: Sequence[Value]) -> Value:
    """Return a closure for ``[items]``."""

    def run(frame: Frame) -> list[Any]:
        frame[0].make_elements(len(items))
        return [item(frame) for item in items]

    return run


def map_of(entries: Sequence[tuple[Value, int, Value]]) -> Value:
    """Return a closure for ``{key: value}``. Each entry has the position of its key."""

    def run(frame: Frame) -> dict[Any, Any]:
        frame[0].make_elements(2 * len(entries))
        made: dict[Any, Any] = {}
        for key, position, value in entries:
            try:
                name = key_of(key(frame))
            except EvaluationError as error:
                raise error.at(position) from None
            charge_key(name, frame[0])
            if name in made:
                raise EvaluationError("duplicate key in a map", position)
            made[name] = value(frame)
        return made

    return run


def call(name: str, overloads: Overloads, arguments: Sequence[Value], position: int) -> Value:
    """Return a closure for ``name(arguments)``."""
    general = overloads.get(ANY)

    def run(frame: Frame) -> Any:
        values = [argument(frame) for argument in arguments]
        function = overloads.get(tuple(map(type, values)), general)
        if function is None:
            raise no_overload(f"{name}()", *values).at(position)
        budget: Budget = frame[0]
        try:
            return function(budget, *values)
        except EvaluationError as error:
            raise error.at(position) from None
        except (
            OverflowError,
            ValueError,
        ):  # integers from JSON can exceed the limits of Python's own functions
            raise EvaluationError(
                f"{name}() cannot use a number of more than 64 bits", position
            ) from None

    return run
