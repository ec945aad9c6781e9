"""The fields of a trigger, and its expressions."""

from typing import Any

import pytest

from flowkit import Trigger
from flowkit._expressions import Budget
from flowkit._triggers import TriggerEvent, faults_in_expressions, params_for, wants
from flowkit.errors import NodeFailure
from tests.builders import graph, node

KAFKA = "kafka://host:9092/orders"


def trigger(**fields: Any) -> Trigger:
    return Trigger("t", **{"source": "task:etl", "graph": graph(node("a")), **fields})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"flow": "f"}, "give exactly one of graph and flow"),
        ({"graph": None}, "give exactly one of graph and flow"),
        ({"version": 1}, "version has no effect without flow"),
        ({"source": "task:"}, r"source\n.*it names no pipeline; write task:PIPELINE"),
        ({"source": "task:a\nb"}, "cannot be printed"),
        ({"sources": "x"}, "sources"),
        ({"labels": {"a=b": "c"}}, "'a=b' cannot be the key of a label"),
        ({"labels": {"${event.key}": "x"}}, "expressions .* not supported here; write the text"),
        ({"pipeline": "${event.key}"}, "expressions .* not supported here; write the text"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        trigger(**fields)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"when": "event.valu"}, "/when.*unknown field.*did you mean 'value'"),
        ({"when": "results.a"}, "/when.*unknown name 'results'"),
        ({"when": "1 +"}, "/when.*not a valid expression"),
        ({"params": {"x": ["${task.id}"]}}, "/params/x/0.*unknown name 'task'"),
        ({"params": {"x": "${"}}, "/params/x.*not a valid expression"),
        ({"params": {"x": "${event.topic}"}}, "/params/x.*field 'event.topic'.*fields: value"),
        ({"when": "event.key == 'a'"}, "/when.*unknown field 'event.key'"),
        ({"when": "event['offset'] == 1"}, "/when.*unknown field 'event.offset'"),
        ({"when": "event.value.state == 'x'"}, "/when.*'event.value.state'.*mean 'status'"),
        ({"when": "event.zone == 1", "source": KAFKA}, "/when.*unknown field 'event.zone'"),
    ],
)
def test_an_expression_that_cannot_have_a_value_is_a_fault(
    fields: dict[str, Any], why: str
) -> None:
    (fault,) = faults_in_expressions(trigger(**fields))
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(fault)


def test_expressions_see_the_event() -> None:
    event = TriggerEvent({"n": 2}, key="k", topic="orders", partition=0, offset=7)
    given = trigger(
        source=KAFKA,
        when="event.value.n > 1",
        params={"n": "${event.value.n}", "at": "${event.key}"},
    )
    assert not list(faults_in_expressions(given))
    assert wants(given, event, Budget(1000, 1000))
    assert params_for(given, event, Budget(1000, 1000)) == {"n": 2, "at": "k"}


def test_a_condition_that_is_not_true_or_false_is_a_failure() -> None:
    with pytest.raises(NodeFailure, match="must be true or false"):
        wants(trigger(when="event.value"), TriggerEvent(1), Budget(1000, 1000))
