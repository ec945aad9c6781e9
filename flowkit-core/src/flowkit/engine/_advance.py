"""The one function through which every change of a task goes, and the life of a task as a whole."""

from collections.abc import Callable
from typing import Any

from flowkit.engine._draft import Transition
from flowkit.engine._events import (
    CancelRequested,
    CommandsSent,
    ConditionEvaluated,
    Event,
    FunctionFailed,
    FunctionReturned,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TaskSubmitted,
    Woke,
)
from flowkit.engine._nodes import (
    batch_stored,
    begin_ready_nodes,
    condition_evaluated,
    consider,
    function_failed,
    function_returned,
    node_failed,
    node_progressed,
    node_released,
    node_started,
    node_stopped,
    node_succeeded,
    stop_everything,
)
from flowkit.engine._readiness import edge_outcome, handles_failure
from flowkit.engine._settings import EngineSettings
from flowkit.engine._timers import woke
from flowkit.messages import (
    BatchStored,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import ENDED, Mark, Task, TaskStatus

DEFAULT_SETTINGS = EngineSettings()


def advance(task: Task, event: Event, *, now: float, settings: EngineSettings = DEFAULT_SETTINGS) -> Transition:
    """What an event does to a task. The task itself is not touched.

    The work is proportional to the number of children of the nodes that end (and to the whole graph for a cancellation or a
    retry). An event that is foreign, stale or a copy changes nothing: the transition is ``ignored``.
    """
    draft = Transition(task, now)
    _HANDLERS[type(event)](draft, event, settings)
    if not draft.ignored:
        begin_ready_nodes(draft, settings)
        settle(draft)
    return draft


def settle(draft: Transition) -> None:
    """Bring the task's own status in line with its nodes'."""
    if draft.status.terminal and not draft.rederive:
        return
    if draft.open == 0:
        outcome = draft.outcome or (TaskStatus.FAILED if draft.failures else TaskStatus.FINISHED)
        draft.finished_at = draft.now
        draft.wake_at = None
        draft.outcome = outcome
        draft.set_status(outcome, draft.error if outcome is TaskStatus.FAILED else draft.reason)
    elif draft.outcome is not None:
        draft.set_status(TaskStatus.CANCELLING, draft.reason)
    elif draft.paused:
        draft.set_status(TaskStatus.PAUSED)
    elif draft.deferred and not draft.in_flight:
        draft.set_status(TaskStatus.DEFERRED)
    elif draft.started_at is not None:
        draft.set_status(TaskStatus.RUNNING)
    else:
        draft.set_status(TaskStatus.QUEUED)


def _submitted(draft: Transition, event: TaskSubmitted, settings: EngineSettings) -> None:
    if draft.task.seq:
        draft.ignored = True
        return
    draft.note(-1, "status", TaskStatus.QUEUED)
    draft.wake(draft.deadline_at)
    for index in draft.task.spec.plan.roots:
        consider(draft, index, settings)


def _cancel(draft: Transition, event: CancelRequested, settings: EngineSettings) -> None:
    if draft.status.terminal or draft.outcome is not None:
        draft.ignored = True
        return
    draft.outcome = TaskStatus.CANCELLED
    draft.reason = event.reason
    draft.paused = False
    stop_everything(draft, "cancelled", settings)


def _pause(draft: Transition, event: PauseRequested, settings: EngineSettings) -> None:
    if draft.status.terminal or draft.outcome is not None or draft.paused:
        draft.ignored = True
        return
    draft.paused = True


def _resume(draft: Transition, event: ResumeRequested, settings: EngineSettings) -> None:
    if not draft.paused:
        draft.ignored = True
        return
    draft.paused = False


def _retry(draft: Transition, event: RetryRequested, settings: EngineSettings) -> None:
    task = draft.task
    if draft.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        draft.ignored = True
        return
    again = _nodes_to_reset(task, event.nodes)
    if not again:
        draft.ignored = True
        return
    marks = bytearray(task.marks)
    for index in again:
        if index in task.records:
            record = draft.edit(index)
            record.generation += marks[index] == Mark.FINISHED
            record.first_attempt = record.attempt + 1
            record.worker_id = record.reason_code = record.error = record.result = record.metrics = None
            record.started_at = record.heard_at = record.finished_at = record.next_retry_at = record.cancel_by = None
            record.first_issued_at = 0.0
            record.has_batch = False
        marks[index] = draft.marks[index] = Mark.WAITING
        draft.note(index, "status", "queued", {"retry": True})
    draft.rederive = True
    draft.outcome = draft.error = draft.reason = draft.finished_at = draft.started_at = None
    draft.open = sum(mark not in ENDED for mark in marks)
    draft.failures = sum(mark == Mark.FAILED and not handles_failure(task.spec.plan, index) for index, mark in enumerate(marks))
    if task.deadline_at is not None:
        draft.deadline_at = draft.now + (task.deadline_at - task.spec.created_at)
        draft.wake(draft.deadline_at)
    _recount(draft, marks)
    for index in sorted(again):
        if draft.marks[index] == Mark.WAITING:
            consider(draft, index, settings)


def _recount(draft: Transition, marks: bytearray) -> None:
    plan = draft.task.spec.plan
    for index in range(len(marks)):
        draft.counts[index] = [0, 0, 0]
    for index, mark in enumerate(marks):
        if mark in ENDED:
            for edge in plan.children[index]:
                draft.counts[edge.node][edge_outcome(mark, edge.route)] += 1


def _nodes_to_reset(task: Task, chosen: tuple[int, ...] | None) -> set[int]:
    plan, marks = task.spec.plan, task.marks
    if chosen is None:
        first = [index for index, mark in enumerate(marks) if mark in (Mark.FAILED, Mark.CANCELLED)]
        again = {index for index in first if marks[index] != Mark.FAILED or not handles_failure(plan, index)}
        grow = list(again)
        while grow:
            for edge in plan.children[grow.pop()]:
                if marks[edge.node] != Mark.FINISHED and edge.node not in again:
                    again.add(edge.node)
                    grow.append(edge.node)
        return again
    again = set(chosen)
    grow = list(chosen)
    while grow:
        for edge in plan.children[grow.pop()]:
            if edge.node not in again:
                again.add(edge.node)
                grow.append(edge.node)
    return again


def _commands_sent(draft: Transition, event: CommandsSent, settings: EngineSettings) -> None:
    for index, attempt in event.commands:
        record = draft.task.records.get(index)
        if record is not None and record.attempt == attempt and not record.sent:
            draft.edit(index).sent = True
    if not draft.records:
        draft.ignored = True


_HANDLERS: dict[type, Callable[[Transition, Any, EngineSettings], None]] = {
    TaskSubmitted: _submitted,
    CancelRequested: _cancel,
    PauseRequested: _pause,
    ResumeRequested: _resume,
    RetryRequested: _retry,
    CommandsSent: _commands_sent,
    ConditionEvaluated: condition_evaluated,
    FunctionReturned: function_returned,
    FunctionFailed: function_failed,
    Woke: woke,
    NodeStarted: node_started,
    NodeProgressed: node_progressed,
    BatchStored: batch_stored,
    NodeSucceeded: node_succeeded,
    NodeFailed: node_failed,
    NodeStopped: node_stopped,
    NodeReleased: node_released,
}
