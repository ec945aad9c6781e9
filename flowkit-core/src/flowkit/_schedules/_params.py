"""Expressions in the params of schedules."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit._expressions import Budget, InvalidExpression, Timestamp
from flowkit._expressions.templates import Placed, split_template
from flowkit._json.values import short
from flowkit.graph._conditions import Names, expression_fault
from flowkit.graph._templates import evaluate_params, pointer, templates_in_params

NAMES = Names(names=("schedule",), task=())


def faults_in_params(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the expressions in the params of a schedule."""
    for found in templates_in_params(params):
        where = pointer(found.path)
        try:
            parts = split_template(found.text)
        except InvalidExpression as error:
            yield f"{where}: {short(found.text)} is not a valid expression: {error}"
            continue
        for part in parts:
            if isinstance(part, Placed) and (fault := expression_fault(part.source, NAMES)):
                yield f"{where}: {short(part.source)} {fault.text(part.position)}"


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
