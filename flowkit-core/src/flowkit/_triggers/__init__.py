"""Triggers: their definition, their events, and what they decide."""

from flowkit._triggers._deliveries import cause_of, event_of_delivery
from flowkit._triggers._events import TriggerEvent, faults_in_expressions, params_for, wants
from flowkit._triggers._trigger import TASK_SOURCE, Trigger, pipeline_of
from flowkit._triggers._views import TriggerView

__all__ = [
    "TASK_SOURCE",
    "Trigger",
    "TriggerEvent",
    "TriggerView",
    "cause_of",
    "event_of_delivery",
    "faults_in_expressions",
    "params_for",
    "pipeline_of",
    "wants",
]
