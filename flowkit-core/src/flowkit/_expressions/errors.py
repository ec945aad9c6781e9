"""Errors of expressions, which callers turn into graph faults and node failures."""

from typing import Self

from flowkit.errors import FlowKitError


class ExpressionError(FlowKitError):
    """Base class of the errors of expressions.

    ``position`` counts characters from 0; None if it is unknown.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason = reason
        self.position = position
        super().__init__(reason, position)

    def at(self, position: int) -> Self:
        """Set the position, unless an inner part of the expression has set it."""
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
    """Expression that cannot be compiled."""


class EvaluationError(ExpressionError):
    """Value that cannot be computed.

    ``&&``, ``||``, ``all`` and ``exists`` ignore it if another operand decides the result.
    """


class BudgetExceeded(ExpressionError):
    """Evaluation that exceeds its steps or memory. No operator ignores it."""
