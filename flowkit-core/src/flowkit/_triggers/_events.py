"""Events of triggers, and the expressions that read them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit._expressions import Budget, Timestamp
from flowkit._json.limits import is_moment
from flowkit._json.values import short
from flowkit._triggers._trigger import Trigger, pipeline_of
from flowkit.graph._conditions import Names, evaluate_condition, expression_fault
from flowkit.graph._definition_params import expression_faults
from flowkit.graph._path_faults import EVENT_FIELDS
from flowkit.graph._templates import evaluate_params

NAMES = Names(names=("event",), task=())
END_NAMES = NAMES._replace(event=("value",), event_value=("id", "status", "result", "error"))
"""Names with a source ``task:PIPELINE``."""


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """Event of a source, as the expressions of a trigger see it."""

    value: Any
    key: Any = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp: float | None = None

    def scope(self) -> dict[str, Any]:
        """Return the values of the names in expressions."""
        fields = {name: getattr(self, name) for name in EVENT_FIELDS}
        if (at := self.timestamp) is not None:
            nanos = round(at * 1_000_000) * 1_000
            fields["timestamp"] = Timestamp(nanos) if is_moment(at) else None
        return {"event": fields}


def faults_in_expressions(trigger: Trigger) -> Iterator[str]:
    """Yield what is wrong with the condition and the params of a trigger."""
    names = NAMES if pipeline_of(trigger.source) is None else END_NAMES
    if trigger.when is not None and (fault := expression_fault(trigger.when, names)) is not None:
        yield f"/when: {short(trigger.when)} {fault.text()}"
    yield from expression_faults(trigger.params, names)


def wants(trigger: Trigger, event: TriggerEvent, budget: Budget) -> bool:
    """Return whether the condition of a trigger is true for an event.

    Raises:
        NodeFailure: it cannot be evaluated, or its value is not true or false.
        BudgetExceeded: the budget does not suffice.
    """
    return trigger.when is None or evaluate_condition(trigger.when, event.scope(), budget)


def params_for(
    trigger: Trigger, event: TriggerEvent, budget: Budget, *, at_once: bool = False
) -> dict[str, Any]:
    """Return the params of the task of an event.

    Raises:
        NodeFailure: an expression has no value.
        BudgetExceeded: the budget does not suffice.
    """
    return evaluate_params(trigger.params, event.scope(), budget, at_once=at_once)
