"""Expressions in a bounded subset of CEL, the Common Expression Language.

:func:`compile_expression` validates and compiles an expression and caches the result. Nothing in
this package waits, reads a clock or starts a thread. ``docs/topics/expressions.md`` describes the
language.
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
    """Compiled expression.

    ``paths`` are the paths that it reads, such as ``("results", "count", "n")``, each with its
    position. A path ends before the first part that is not a constant field: ``results[vars.x]``
    reads ``("results",)``. ``pattern_weight`` is an upper estimate of the microseconds spent on
    checking the patterns of ``matches``.
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
        """Evaluate the expression. ``scope`` has the values of its names, which are not copied.

        Raises:
            EvaluationError: the expression has no value.
            BudgetExceeded: the evaluation exceeds the budget.
        """
        frame: list[Any] = [None] * self._size
        frame[0] = budget
        for name, place in self._names:
            frame[place] = scope[name]
        return self._run(frame)


SHORT = 500
"""Maximum length of expressions in the larger cache.

A compiled expression uses some hundred bytes per character, so fewer long ones are cached.
"""
_compile_short = lru_cache(maxsize=1024)(Expression)
_compile_long = lru_cache(maxsize=128)(Expression)


def compile_expression(source: str) -> Expression:
    """Validate and compile an expression. Recently compiled ones are cached.

    Raises:
        InvalidExpression: it does not parse, or calls a function that does not exist or with a
            wrong number of arguments.
    """
    return _compile_short(source) if len(source) <= SHORT else _compile_long(source)


def compilations() -> int:
    """Return the number of expressions compiled in this process, without cache hits."""
    return _compile_short.cache_info().misses + _compile_long.cache_info().misses
