"""Expressions: a bounded subset of CEL, the Common Expression Language. See
``docs/topics/expressions.md``.

:func:`compile_expression` checks an expression and compiles it, once for each text. Nothing here
waits, reads a clock or starts a thread.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flowkit._expressions.budget import Budget
from flowkit._expressions.compiler import Names, Path, compile_node
from flowkit._expressions.errors import (
    BudgetExceeded,
    EvaluationError,
    ExpressionError,
    InvalidExpression,
)
from flowkit._expressions.lexer import MAX_LENGTH
from flowkit._expressions.parser import parse
from flowkit._expressions.values import Duration, Timestamp, Type, UInt

__all__ = [
    "MAX_LENGTH",
    "Budget",
    "BudgetExceeded",
    "Duration",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "InvalidExpression",
    "Path",
    "Timestamp",
    "Type",
    "UInt",
    "compilations",
    "compile_expression",
]


class Expression:
    """A compiled expression. ``paths`` are the paths it reads, such as ``("results", "count",
    "n")``, with the position of each.

    A path ends where the expression goes on with something else than a constant field:
    ``results[vars.x]`` reads ``("results",)``. ``pattern_weight`` is the time in which the patterns
    of ``matches`` were checked, in microseconds and estimated from above.
    """

    __slots__ = ("_names", "_run", "_size", "paths", "pattern_weight", "source")

    def __init__(self, source: str) -> None:
        names = Names()
        self.source = source
        self._run = compile_node(parse(source), names)
        self._names = tuple(names.outer.items())
        self._size = names.size
        self.paths: Mapping[Path, int] = names.paths
        self.pattern_weight = sum(names.patterns.values())

    def evaluate(self, scope: Mapping[str, Any], budget: Budget) -> Any:
        """Compute the value. ``scope`` has the values of the names; they are not copied.

        Raises:
            EvaluationError: there is no value.
            BudgetExceeded: it would take more than the budget.
        """
        frame: list[Any] = [None] * self._size
        frame[0] = budget
        for name, place in self._names:
            frame[place] = scope[name]
        return self._run(frame)


SHORT = 500
"""A compiled expression takes some hundred bytes for each character, so fewer of the longer ones
are kept.
"""
_compile_short = lru_cache(maxsize=1024)(Expression)
_compile_long = lru_cache(maxsize=128)(Expression)


def compile_expression(source: str) -> Expression:
    """Check and compile an expression; those that were compiled lately are kept.

    Raises:
        InvalidExpression: it does not parse, or calls a function that does not exist or with a
            wrong number of arguments.
    """
    return _compile_short(source) if len(source) <= SHORT else _compile_long(source)


def compilations() -> int:
    """Count of compiled expressions in this process: those that were not cached."""
    return _compile_short.cache_info().misses + _compile_long.cache_info().misses
