"""Decisions about the ends of tasks."""

from dataclasses import replace
from typing import Any

import pytest

from flowkit import Graph, Trigger
from flowkit._records.trigger_records import EndEvent, StoredTrigger
from flowkit.client._trigger_runs import Decision, decide
from flowkit.task import Task, TaskSpec, TaskStatus
from tests.builders import graph, node

NOON = 1_000_000.0
EVENT = EndEvent("t", "k", "x", 5)
STORED = StoredTrigger(
    Trigger("t", source="task:etl", graph=graph(node("a"))), b"{}", NOON, "k", NOON
)


def ended(seq: int = 5, status: TaskStatus = TaskStatus.FINISHED) -> Any:
    plan = Graph.parse(graph(node("a"))).plan
    spec = TaskSpec("x", plan, NOON, b"key", pipeline="etl")
    finished_at = NOON if status.terminal else None
    return Task(spec, bytearray(), seq=seq, status=status, finished_at=finished_at)


@pytest.mark.parametrize(
    ("task", "stored", "decision"),
    [
        (ended(), STORED, Decision.MAKE),
        (ended(), replace(STORED, paused=True), Decision.PUT_ASIDE),
        (ended(seq=4, status=TaskStatus.RUNNING), STORED, Decision.WAIT),
        (ended(status=TaskStatus.RUNNING), STORED, Decision.WAIT),
        (ended(seq=6, status=TaskStatus.RUNNING), STORED, Decision.DROP),
        (ended(seq=6), STORED, Decision.DROP),
        (ended(), replace(STORED, token="another"), Decision.DROP),
        (None, STORED, Decision.WAIT),
        (ended(), None, Decision.WAIT),
    ],
)
def test_an_end_counts_once_it_is_stored_and_until_the_task_changes_again(
    task: Any, stored: StoredTrigger | None, decision: Decision
) -> None:
    assert decide(EVENT, stored, task) is decision


def test_an_end_of_another_pipeline_is_dropped() -> None:
    other = replace(STORED, trigger=Trigger("t", source="task:load", graph=graph(node("a"))))
    assert decide(EVENT, other, ended()) is Decision.DROP
