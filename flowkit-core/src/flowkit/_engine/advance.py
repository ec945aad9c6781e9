"""The function that applies an event to a task, and the events of a task as a whole."""

from collections.abc import Callable, Collection
from itertools import chain
from typing import Any

from flowkit._engine.child_tasks import (
    child_ended,
    child_failed,
    child_finished,
    children_created,
    force_children,
    round_checked,
    run_children,
    runs_children,
)
from flowkit._engine.conditions import condition_delayed, condition_evaluated
from flowkit._engine.decisions import decision_made
from flowkit._engine.effects import TellParent
from flowkit._engine.events import (
    ArgumentsEvaluated,
    CancelRequested,
    ChangesPublished,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    ChildrenDue,
    CommandsLost,
    CommandsSent,
    CommandWaiting,
    CommandWithdrawn,
    ConditionDelayed,
    ConditionEvaluated,
    DecisionMade,
    EndsRead,
    Event,
    FollowParent,
    FunctionFailed,
    FunctionReturned,
    KeyBusy,
    KeyGranted,
    KeyNamed,
    KeyQueued,
    KeysAnswered,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NodeResolved,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResultCached,
    ResultWanted,
    ResumeRequested,
    RetryRequested,
    RoundChecked,
    RunNowRequested,
    ShardsCollected,
    SignalReceived,
    TaskSubmitted,
    Woke,
)
from flowkit._engine.keys import (
    key_busy,
    key_granted,
    key_named,
    key_queued,
    keys_answered,
    result_cached,
    result_wanted,
)
from flowkit._engine.later_reruns import (
    only_later_nodes,
    rerun_later_nodes,
    reset_later_phases,
)
from flowkit._engine.map_reruns import chosen_nodes, renewed_nodes, reset_maps
from flowkit._engine.map_undos import emptied_maps, ends_read, undone_children
from flowkit._engine.maps import (
    children_due,
    close_maps,
    map_collected,
    map_failed,
    map_grew,
    map_opened,
    shards_collected,
)
from flowkit._engine.node_ends import failure_sentence, stop_everything
from flowkit._engine.node_starts import (
    command_waiting,
    commands_lost,
    commands_sent,
    decide_waiting,
    issue_ready_nodes,
)
from flowkit._engine.outputs import output_delayed, output_evaluated, request_output
from flowkit._engine.pauses import run_now
from flowkit._engine.pending_effects import withdrawals_of_carriers
from flowkit._engine.phases import (
    abandon_later_phases,
    end_status,
    main_outcome,
    run_later_phases,
)
from flowkit._engine.publications import UNDECIDED, changes_published, publish_changes
from flowkit._engine.readiness import awaits_output, edge_outcomes, fails_task, lacks_place
from flowkit._engine.reports import (
    batch_stored,
    batches_retried,
    command_withdrawn,
    function_failed,
    function_returned,
    node_failed,
    node_held_up,
    node_progressed,
    node_released,
    node_started,
    node_stopped,
    node_succeeded,
)
from flowkit._engine.reruns import blocked_nodes, nodes_to_reset, reset_record, undone_nodes
from flowkit._engine.resolutions import node_resolved
from flowkit._engine.segments import end_promises
from flowkit._engine.settings import EngineSettings
from flowkit._engine.signals import signal_received
from flowkit._engine.task_keys import return_place
from flowkit._engine.timers import woke
from flowkit._engine.transition import Transition
from flowkit._engine.waits import arguments_evaluated
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    ChildEnded,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import ENDED, Mark, NodeRecord, Task, TaskStatus

DEFAULT_SETTINGS = EngineSettings()


def advance(
    task: Task, event: Event, *, now: float, settings: EngineSettings = DEFAULT_SETTINGS
) -> Transition:
    """Return the transition of a task for an event. The task itself is not changed.

    The time is proportional to the number of children of the nodes that end; for a cancellation or
    a retry, to the size of the graph. A stale, repeated or foreign event changes nothing: its
    transition is ``ignored``.
    """
    draft = Transition(task, now)
    _HANDLERS[type(event)](draft, event, settings)
    if draft.ignored:
        return draft
    if type(event) not in _MOVES_NO_NODE and not (type(event) is Woke and task.terminal):
        if draft.maps:
            close_maps(draft, settings)
        end_promises(draft, settings)
        issue_ready_nodes(draft, settings)
        if draft.open == 0 and task.spec.plan.ends is not None and not awaits_output(draft):
            run_later_phases(draft, settings)
        settle(draft, settings)
    publish_changes(draft, settings)
    return draft


def settle(draft: Transition, settings: EngineSettings) -> None:
    """Derive the status of the task from its nodes and its output."""
    if draft.open == 0 and not awaits_output(draft):
        draft.outcome = draft.outcome or main_outcome(draft)
        if draft.finished_at is None:
            draft.finished_at = draft.now
        draft.wake_at = None
        draft.paused = False
        return_place(draft)
        status = end_status(draft.task.spec.plan, draft) or draft.outcome
        draft.set_status(status, draft.error if status is TaskStatus.FAILED else draft.reason)
        if draft.task.spec.parent is not None:
            draft.effects.append(TellParent())
    elif draft.outcome is not None and (
        end_status(draft.task.spec.plan, draft) is not TaskStatus.FINISHED
    ):
        draft.set_status(TaskStatus.CANCELLING, draft.reason)
    else:
        if (status := _status_of_open(draft)) is not draft.status:
            draft.set_status(status, _awaited(draft) if status is TaskStatus.DEFERRED else None)
        if draft.open == 0:
            request_output(draft, settings)


def _status_of_open(draft: Transition) -> TaskStatus:
    """Return the status of a task that is not being stopped, with open nodes or without output."""
    if draft.paused:
        return TaskStatus.PAUSED
    if _awaited(draft) is not None or (draft.deferred and not draft.in_flight):
        return TaskStatus.DEFERRED
    return TaskStatus.QUEUED if draft.started_at is None else TaskStatus.RUNNING


def _awaited(draft: Transition) -> dict[str, Any] | None:
    """Return the data of the change to a status in which the task waits for the key of its graph;
    None if it does not.
    """
    if draft.key is None or draft.key.state != "queued":
        return None
    return {"waiting": "key", "key": draft.key.key}


def _submitted(draft: Transition, event: TaskSubmitted, settings: EngineSettings) -> None:
    if draft.task.seq:
        draft.ignored = True
        return
    draft.note(-1, "status", TaskStatus.QUEUED.value)
    draft.publication = UNDECIDED
    _set_deadline(draft)
    if not lacks_place(draft):
        for index in draft.task.spec.plan.roots:
            decide_waiting(draft, index, settings)


def _set_deadline(draft: Transition) -> None:
    seconds = draft.task.spec.deadline_sec
    draft.deadline_at = None if seconds is None else draft.now + seconds
    if seconds is not None:
        draft.wake(draft.deadline_at)


def _cancel(draft: Transition, event: CancelRequested, settings: EngineSettings) -> None:
    if draft.status.terminal or (draft.outcome is not None and not event.force):
        draft.ignored = True
        return
    if draft.outcome in (None, TaskStatus.FINISHED):
        draft.outcome = TaskStatus.CANCELLED
        draft.output = None
    if event.reason or draft.reason is None:
        draft.reason = event.reason
    if event.force:
        force_children(draft)
        abandon_later_phases(draft, "cancelled", settings)
        draft.ignored = (
            not draft.marks
            and draft.outcome is draft.task.outcome
            and draft.forced is draft.task.forced
        )
    else:
        stop_everything(draft, "cancelled", settings)


def _pause(draft: Transition, event: PauseRequested, settings: EngineSettings) -> None:
    if draft.status.terminal or draft.outcome is not None or _reaches_nothing(draft, paused=True):
        draft.ignored = True
        return
    _set_paused(draft, paused=True)


def _resume(draft: Transition, event: ResumeRequested, settings: EngineSettings) -> None:
    if draft.status.terminal or _reaches_nothing(draft, paused=False):
        draft.ignored = True
        return
    _set_paused(draft, paused=False)


def _reaches_nothing(draft: Transition, *, paused: bool) -> bool:
    """Return whether a pause or its end has no effect on a task and the tasks below it."""
    return draft.paused is paused and not runs_children(draft)


def _set_paused(draft: Transition, *, paused: bool) -> None:
    """Pause or resume a task and its child tasks, also those that were paused or resumed alone."""
    if paused:
        draft.end_segments()
        draft.effects += withdrawals_of_carriers(draft.task)
    draft.paused = paused
    draft.pauses += 1
    for index in () if paused else draft.task.spec.plan.controls:
        if draft.mark(index) == Mark.READY:
            draft.queue(index)
    run_children(draft)


def _follow_parent(draft: Transition, event: FollowParent, settings: EngineSettings) -> None:
    """Bring a child task in line with the node that runs it. Earlier attempts of the node do not
    count any more.
    """
    newer = event.attempt > draft.parent_attempt
    if event.attempt < draft.parent_attempt or (draft.status.terminal and not newer):
        draft.ignored = True
    elif event.stop is not None:
        draft.parent_attempt = event.attempt
        _cancel(draft, CancelRequested(event.stop, force=event.force), settings)
        draft.ignored = draft.ignored and not newer
    elif draft.status.terminal and not event.paused:
        draft.parent_attempt = event.attempt
        _retry(draft, RetryRequested(), settings)
        _follow_pauses(draft, event)
    elif draft.outcome is not None and newer:
        # It stops for an earlier attempt, and runs again for this one when it has ended.
        draft.ignored = True
    elif newer or event.pauses > draft.parent_pauses:
        draft.parent_attempt = event.attempt
        _follow_pauses(draft, event)
    else:
        draft.ignored = True


def _follow_pauses(draft: Transition, event: FollowParent) -> None:
    ending = draft.outcome is not None  # its undos and finally are not paused
    if event.pauses > draft.parent_pauses and not (event.paused and ending):
        _set_paused(draft, paused=event.paused)
    draft.parent_pauses = max(event.pauses, draft.parent_pauses)


def _retry(draft: Transition, event: RetryRequested, settings: EngineSettings) -> None:
    task = draft.task
    if not draft.status.terminal or (draft.status is TaskStatus.FINISHED and not event.fill):
        draft.ignored = True
        return
    draft.rederive = True
    draft.forced = False
    plan = task.spec.plan
    chosen = chosen_nodes(plan, event.nodes)
    if only_later_nodes(plan, chosen):
        _recount(draft, rerun_later_nodes(draft, event.nodes or ()))
        return
    if _would_run_nothing(task, chosen):
        draft.ignored = True
        return
    again = nodes_to_reset(task, chosen)
    undone = undone_children(task)
    emptied = emptied_maps(task, undone)
    filled = set[int]()
    if event.fill:
        filled = {*(chosen or ()), *(event.nodes or ())} - undone_nodes(task)
        filled -= {*chain.from_iterable(undone.values())}
    emptied |= renewed_nodes(task, event.nodes or (), filled=filled)
    from_nothing = _from_nothing(task, again, emptied, filled)
    marks = task.marks[: plan.size]
    in_order = [index for index in plan.order if index in again]
    for index in in_order:
        required = marks[index] == Mark.FINISHED or index in (chosen or ())
        if required or index in task.records:
            record = task.records.get(index) or NodeRecord()
            draft.records[index] = reset_record(
                record, from_nothing=index in from_nothing, required=required
            )
        marks[index] = draft.marks[index] = Mark.WAITING
        draft.note(index, "status", "queued", {"retry": True})
    children = 0
    if task.maps:
        named = {*(event.nodes or ()), *chain.from_iterable(undone.values())}
        children = reset_maps(draft, in_order, from_nothing, named, emptied=emptied, filled=filled)
    if plan.ends is not None:
        reset_later_phases(draft, marks, again)
    failed = [
        index for index, mark in enumerate(marks) if mark == Mark.FAILED and fails_task(plan, index)
    ]
    draft.reason = draft.error = draft.finished_at = None
    draft.started_at = None if again else draft.started_at
    if again or draft.outcome is not TaskStatus.FINISHED:
        draft.outcome = draft.output = None
        _forget_ending(draft, again)
        if failed:
            draft.error = failure_sentence(plan, failed[0], draft.record(failed[0]))
    draft.open = len(again) + children
    draft.failures = len(failed)
    _set_deadline(draft)
    _recount(draft, marks)
    for index in () if lacks_place(draft) else in_order:
        if draft.marks[index] == Mark.WAITING:
            decide_waiting(draft, index, settings)


def _would_run_nothing(task: Task, chosen: Collection[int] | None) -> bool:
    """Return whether the task finished although nodes failed, because ``task.end`` ended it, and
    none of the chosen nodes can start again. Then it stays finished.
    """
    return (
        task.status is TaskStatus.FINISHED
        and task.failures > 0
        and chosen is not None
        and len(blocked_nodes(task, chosen)) == len(chosen)
    )


def _forget_ending(draft: Transition, again: Collection[int]) -> None:
    """Record that no node ended the task, because it goes on: the one that called ``task.end``
    keeps its result.
    """
    for index, record in draft.task.records.items():
        if record.ended_task and index not in again:
            draft.edit(index).ended_task = False


def _from_nothing(task: Task, again: set[int], emptied: set[int], filled: set[int]) -> set[int]:
    """Return the nodes that drop their stored batches: finished nodes, ``emptied`` maps, and all
    nodes below them, whose input is produced again. The ``filled`` ones keep theirs if their input
    stays.
    """
    plan, marks = task.spec.plan, task.marks
    found: set[int] = set()
    for index in plan.order:
        finished = marks[index] == Mark.FINISHED and index not in filled
        has_new_input = any(edge.node in found for edge in plan.parents[index])
        if index in emptied or (index in again and (finished or has_new_input)):
            found.add(index)
    return found


def _recount(draft: Transition, marks: bytearray) -> None:
    plan = draft.task.spec.plan
    for index in range(len(marks)):
        draft.counts[index] = [0, 0, 0]
    for index, mark in enumerate(marks):
        if mark in ENDED:
            outcomes = edge_outcomes(plan, index, mark)
            for edge in plan.children[index]:
                draft.counts[edge.node][outcomes[edge.route]] += 1


_HANDLERS: dict[type, Callable[[Transition, Any, EngineSettings], None]] = {
    TaskSubmitted: _submitted,
    CancelRequested: _cancel,
    PauseRequested: _pause,
    ResumeRequested: _resume,
    RetryRequested: _retry,
    SignalReceived: signal_received,
    DecisionMade: decision_made,
    RunNowRequested: run_now,
    NodeResolved: node_resolved,
    FollowParent: _follow_parent,
    ConditionEvaluated: condition_evaluated,
    ConditionDelayed: condition_delayed,
    OutputEvaluated: output_evaluated,
    OutputDelayed: output_delayed,
    ArgumentsEvaluated: arguments_evaluated,
    FunctionReturned: function_returned,
    FunctionFailed: function_failed,
    MapOpened: map_opened,
    MapGrew: map_grew,
    MapFailed: map_failed,
    ChildrenDue: children_due,
    MapCollected: map_collected,
    ShardsCollected: shards_collected,
    EndsRead: ends_read,
    ChildrenCreated: children_created,
    ChildEnded: child_ended,
    ChildFinished: child_finished,
    ChildFailed: child_failed,
    RoundChecked: round_checked,
    KeyNamed: key_named,
    KeyGranted: key_granted,
    KeyQueued: key_queued,
    KeysAnswered: keys_answered,
    ResultCached: result_cached,
    ResultWanted: result_wanted,
    KeyBusy: key_busy,
    CommandWithdrawn: command_withdrawn,
    Woke: woke,
    CommandsSent: commands_sent,
    CommandWaiting: command_waiting,
    CommandsLost: commands_lost,
    NodeStarted: node_started,
    NodeProgressed: node_progressed,
    BatchStored: batch_stored,
    BatchesRetried: batches_retried,
    NodeHeldUp: node_held_up,
    NodeSucceeded: node_succeeded,
    NodeFailed: node_failed,
    NodeStopped: node_stopped,
    NodeReleased: node_released,
    ChangesPublished: changes_published,
}

_MOVES_NO_NODE = frozenset(
    {CommandsSent, CommandWaiting, OutputDelayed, ChildrenCreated, ChangesPublished}
)
"""Events after which no node can start and the status of the task is the same."""
