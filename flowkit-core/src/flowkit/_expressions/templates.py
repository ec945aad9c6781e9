"""Templates: strings that contain expressions as ``${ … }``. ``$${`` is a literal ``${``."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit._expressions.budget import Budget
from flowkit._expressions.conversions import text_of
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.lexer import closing_brace
from flowkit._expressions.values import UInt, value_of

OPENING = "${"
_OPENING = re.compile(r"\$?\$\{")


@dataclass(frozen=True, slots=True)
class Placed:
    """Expression in a template. ``position`` is that of its first character."""

    source: str
    position: int


Template = Sequence[str | Placed]
"""Parts of a template, in order: texts and expressions."""


def split_template(text: str) -> Template:
    """Split a template into texts and expressions, which are not compiled.

    Raises:
        InvalidExpression: an expression does not end.
    """
    parts: list[str | Placed] = []
    done = 0
    while (match := _OPENING.search(text, done)) is not None:
        before, done = text[done : match.start()], match.end()
        if match[0] != OPENING:
            parts.append(before + OPENING)
            continue
        if before:
            parts.append(before)
        end = closing_brace(text, done)
        parts.append(Placed(text[done:end], done))
        done = end + 1
    if done < len(text):
        parts.append(text[done:])
    return parts


def json_value(value: Any, budget: Budget, levels: int) -> Any:
    """Return the value of an expression as JSON. The result shares no list or map with ``value``.

    Bytes, times and types become strings, and so do the keys of maps.

    Raises:
        EvaluationError: it has no form in JSON, or is nested more than ``levels`` deep.
        BudgetExceeded: the budget does not suffice for the copy.
    """
    kind = type(value)
    if kind is str:
        budget.make_text(len(value))
        return value
    if value is None or kind is bool or kind is int:
        budget.spend(1)
        return value
    if kind is float:
        budget.spend(1)
        if not math.isfinite(value):
            raise EvaluationError("its value contains a number that is not finite")
        return value
    if kind is UInt:
        budget.spend(1)
        return int(value)
    if kind is not list and kind is not dict:
        return text_of(budget, value)
    if levels <= 0:
        raise EvaluationError("its value is nested too deeply")
    budget.make_elements(1 + len(value))
    if kind is list:
        return [json_value(item, budget, levels - 1) for item in value]
    return _json_object(value, budget, levels)


def _json_object(value: Mapping[Any, Any], budget: Budget, levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, item in value.items():
        name = text_of(budget, value_of(key))
        if name in made:
            raise EvaluationError(f"two keys of a map are {name[:80]!r} as JSON")
        made[name] = json_value(item, budget, levels - 1)
    return made
