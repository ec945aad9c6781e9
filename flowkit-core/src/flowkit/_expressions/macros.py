"""Macros: loops over the elements of a list or the keys of a map."""

from collections.abc import Callable, Iterable
from typing import Any

from flowkit._expressions.budget import ERROR_STEPS, Budget
from flowkit._expressions.closures import Frame, Value
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.values import no_overload, type_name, value_of

Maker = Callable[[Value, int, list[Value], int, int], Value]


def _elements(value: Any, name: str, position: int) -> Iterable[Any]:
    if type(value) is list:
        return value
    if type(value) is dict:
        return map(value_of, value)
    raise no_overload(f"{name}()", value).at(position)


def _decision(value: Any, name: str, position: int) -> bool:
    if value is True or value is False:
        return bool(value)
    raise EvaluationError(
        f"{name}() needs true or false for each element, not {type_name(value)}", position
    )


def _quantifier(name: str, *, deciding: bool) -> Maker:
    """Return the maker of ``all`` or ``exists``.

    An element that decides the result makes errors of the others irrelevant.
    """

    def make(target: Value, place: int, bodies: list[Value], cost: int, position: int) -> Value:
        (body,) = bodies

        def run(frame: Frame) -> bool:
            budget: Budget = frame[0]
            failure: EvaluationError | None = None
            for element in _elements(target(frame), name, position):
                budget.spend(cost)
                frame[place] = element
                try:
                    if _decision(body(frame), name, position) is deciding:
                        return deciding
                except EvaluationError as error:
                    budget.spend(ERROR_STEPS)
                    failure = failure or error
            if failure is not None:
                raise failure
            return not deciding

        return run

    return make


def _exists_one(target: Value, place: int, bodies: list[Value], cost: int, position: int) -> Value:
    (body,) = bodies

    def run(frame: Frame) -> bool:
        found = 0
        for element in _elements(target(frame), "exists_one", position):
            frame[0].spend(cost)
            frame[place] = element
            found += _decision(body(frame), "exists_one", position)
        return found == 1

    return run


def _filter(target: Value, place: int, bodies: list[Value], cost: int, position: int) -> Value:
    (body,) = bodies

    def run(frame: Frame) -> list[Any]:
        budget: Budget = frame[0]
        kept: list[Any] = []
        for element in _elements(target(frame), "filter", position):
            budget.spend(cost)
            frame[place] = element
            if _decision(body(frame), "filter", position):
                budget.make_elements(1)
                kept.append(element)
        return kept

    return run


def _map(target: Value, place: int, bodies: list[Value], cost: int, position: int) -> Value:
    """Return a closure for ``map(x, value)`` or ``map(x, condition, value)``."""
    *conditions, body = bodies

    def run(frame: Frame) -> list[Any]:
        budget: Budget = frame[0]
        made: list[Any] = []
        for element in _elements(target(frame), "map", position):
            budget.spend(cost)
            frame[place] = element
            if all(_decision(condition(frame), "map", position) for condition in conditions):
                budget.make_elements(1)
                made.append(body(frame))
        return made

    return run


LOOPS: dict[str, Maker] = {
    "all": _quantifier("all", deciding=False),
    "exists": _quantifier("exists", deciding=True),
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _map,
}
