"""Errors of expressions. The modules that use expressions turn them into graph faults and node
failures.
"""

from typing import Self

from flowkit.errors import FlowKitError


class ExpressionError(FlowKitError):
    """An expression is wrong. ``position`` counts characters from 0; None if it is not known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        super().__init__(reason, position)

    def at(self, position: int) -> Self:
        """Add the position, unless an inner part of the expression added its own."""
        if self.position is None:
            self.position = position
        return self

    def __str__(self) -> str:
        return (
            self.reason
            if self.position is None
            else f"{self.reason} (at character {self.position + 1})"
        )


class InvalidExpression(ExpressionError):
    """An expression cannot be compiled."""


class EvaluationError(ExpressionError):
    """A value could not be computed. ``&&``, ``||``, ``all`` and ``exists`` ignore it if another
    operand decides the outcome.
    """


class BudgetExceeded(ExpressionError):
    """An evaluation needs more steps or memory than it may use. No operator ignores it, so it ends
    the whole evaluation.
    """
