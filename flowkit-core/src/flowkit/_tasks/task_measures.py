"""Measures of tasks: what a change of a task shows about it."""

from collections.abc import Sequence
from functools import lru_cache

from flowkit._engine import Transition
from flowkit._tasks.views import shown_status
from flowkit.measures import Measure
from flowkit.task import STATUS_OF_MARK, Mark, TaskSpec


def measures_of_new(spec: TaskSpec) -> list[Measure]:
    """Return the measures of a new task."""
    new = [Measure("task_changes", 1, {"status": "queued", "pipeline": spec.pipeline or ""})]
    if spec.schedule is not None:
        new.append(Measure("schedule_late_sec", max(0.0, spec.created_at - spec.schedule.at), {}))
    return new


def measures_of(step: Transition) -> Sequence[Measure]:
    """Return the measures of a change. Call this before the change is applied."""
    task = step.task
    measures: list[Measure] = []
    if step.status is not task.status:
        labels = {"status": step.status.value, "pipeline": task.spec.pipeline or ""}
        measures.append(Measure("task_changes", 1, labels))
        if step.status.terminal:
            measures.append(Measure("task_sec", max(0.0, step.now - task.spec.created_at), labels))
    for index, mark in step.marks.items():
        if task.paused or STATUS_OF_MARK[mark] is not STATUS_OF_MARK[task.marks[index]]:
            measures += _of_node(step, index)
    return measures


@lru_cache(maxsize=1_000)
def _node_change(status: str, role: str) -> Measure:
    return Measure("node_changes", 1, {"status": status, "role": role})


def _of_node(step: Transition, index: int) -> Sequence[Measure]:
    task, role = step.task, step.task.spec.plan.nodes[index].type
    mark = task.marks[index]
    before, after = shown_status(task, index, mark), shown_status(task, index, step.mark(index))
    if after is before:
        return ()
    change = _node_change(after.value, role)
    record, issued = step.record(index), task.records.get(index)
    if mark != Mark.ISSUED or record.started_at is None or issued is None:
        return (change,)
    waited_sec = max(0.0, record.started_at - issued.issued_at)
    return (change, Measure("queue_sec", waited_sec, {"role": role}))
