"""Expressions in the params of schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit._expressions import Budget, Timestamp
from flowkit.graph._conditions import Names
from flowkit.graph._definition_params import expression_faults
from flowkit.graph._templates import evaluate_params

NAMES = Names(names=("schedule",), task=())


def faults_in_params(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the expressions in the params of a schedule."""
    yield from expression_faults(params, NAMES)


def params_at(
    params: Mapping[str, Any],
    schedule_id: str,
    nominal: float,
    budget: Budget,
    *,
    at_once: bool = False,
) -> dict[str, Any]:
    """Return the params of the task of a nominal time.

    Raises:
        NodeFailure: an expression has no value.
        BudgetExceeded: the budget does not suffice.
    """
    at = Timestamp(round(nominal * 1_000_000) * 1_000)
    scope = {"schedule": {"id": schedule_id, "at": at}}
    return evaluate_params(params, scope, budget, at_once=at_once)
