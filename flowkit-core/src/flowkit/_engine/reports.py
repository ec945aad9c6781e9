"""Reports of workers and coordinator functions."""

from collections.abc import Mapping
from hmac import compare_digest

from flowkit._engine.effects import EndSegments, ReadArtifacts, SendCancel
from flowkit._engine.events import CommandWithdrawn, FunctionFailed, FunctionReturned, TaskEnding
from flowkit._engine.node_ends import (
    end_cancelled,
    fail_attempt,
    fail_overdue,
    finish_node,
    stop_everything,
)
from flowkit._engine.node_starts import record_start, start_time
from flowkit._engine.pending_effects import stop_effects
from flowkit._engine.segment_rules import is_called_back, resolved_before
from flowkit._engine.segments import refuse_next, start_next
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import stop_cause, task_stop_code, was_stopped
from flowkit._engine.time_limits import LIMIT_CODES
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._engine.vars import apply as apply_vars
from flowkit.errors import VarsError
from flowkit.graph._expanded_plan import stored_by
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    WorkerReport,
)
from flowkit.task import ATTEMPTED, Mark, NodeRecord, TaskOutput, TaskSpec, TaskStatus


def node_started(draft: Transition, event: NodeStarted, settings: EngineSettings) -> None:
    """Record the start of the current attempt. Its place of a rate is used up when it has begun.
    Its worker may say that it begins no other node of the segment. Answer the start of a cancelled
    one with a cancellation.
    """
    if _is_current(draft, event):
        mark, record = draft.mark(event.index), draft.record(event.index)
        ends_claim = event.begun and record.holds_rate
        ends_segment = event.ends_segment and record.promised > 0
        if mark == Mark.ISSUED:
            record_start(draft, event.index, event.worker_id, event.at, settings)
            if not ends_segment and is_called_back(draft, event.index):
                draft.effects.append(EndSegments())
        elif mark == Mark.CANCELLING and record.worker_id is None:
            _note_start_of_stopped(draft, event)
        elif not ends_claim and not ends_segment:
            _ignore_start(draft, event)
        if ends_segment:
            draft.edit(event.index).promised = 0
        if ends_claim:
            draft.end_claim(event.index, "rate", begun=True)
    else:
        _ignore_start(draft, event)


def _ignore_start(draft: Transition, event: NodeStarted) -> None:
    """Ignore the start of an attempt, and stop it if its node was stopped."""
    draft.ignored = True
    if event.index < len(draft.task.marks) and was_stopped(draft, event.index):
        # The command was in the queue when the node was cancelled: stop the worker that started it.
        code, cause = stop_cause(draft, event.index)
        draft.effects.append(SendCancel(event.index, event.attempt, event.token, cause or code))


def _note_start_of_stopped(draft: Transition, event: NodeStarted) -> None:
    """Record which worker has started an attempt that was being stopped before its start was
    stored, and when.
    """
    record = draft.edit(event.index)
    record.worker_id = event.worker_id
    record.started_at = start_time(record, event.at, draft.now)
    code, cause = stop_cause(draft, event.index)
    draft.effects += stop_effects(draft.task.spec, event.index, record, cause or code)


def command_withdrawn(draft: Transition, event: CommandWithdrawn, settings: EngineSettings) -> None:
    """End an attempt that has never begun, and was being stopped. One that was not was late for its
    rate, or its segment was called back: its node is queued again, and the attempt does not count.
    """
    if not _is_current(draft, event):
        draft.ignored = True
        return
    mark, record = draft.mark(event.index), draft.record(event.index)
    if mark == Mark.CANCELLING or record.overdue:
        error = "its command was withdrawn before a worker started it"
        fail_attempt(draft, event.index, "withdrawn", error, settings)
    elif mark == Mark.ISSUED:
        draft.end_claims(event.index, begun=False)
        _hand_back(draft, event.index, None)
    else:
        draft.ignored = True


def node_progressed(draft: Transition, event: NodeProgressed, settings: EngineSettings) -> None:
    """Record the progress of the current attempt."""
    record = _heard_from(draft, event, settings)
    if record is None:
        return
    record.progress = event.progress
    draft.note(event.index, "progress", None, event.progress, at=event.at)


def batch_stored(draft: Transition, event: BatchStored, settings: EngineSettings) -> None:
    """Record the first batch of a node, which may come from any of its shards, and start the
    children that stream from it. Maps over its artifacts read the new ones.
    """
    record = _heard_from(draft, event, settings)
    if record is None:
        return
    plan = draft.task.spec.plan
    node = stored_by(plan, event.index)
    for index, source in plan.map_sources.items():
        if source == node and draft.mark(index) == Mark.MAPPING:
            draft.effects.append(ReadArtifacts(index, draft.record(index).attempt))
    if draft.record(node).has_batch:
        return
    draft.edit(node).has_batch = True
    draft.note(node, "batch", None, at=event.at)
    for edge in plan.children[node]:
        child = edge.node
        if (
            edge.streams
            and draft.mark(child) == Mark.WAITING
            and (not plan.mixed[child] or draft.may_stream(child))
        ):
            draft.make_ready(child)


def batches_retried(draft: Transition, event: BatchesRetried, settings: EngineSettings) -> None:
    """Record the batches that are being retried."""
    record = _heard_from(draft, event, settings)
    if record is None:
        return
    if event.retries.number > (record.retries or {"number": 0})["number"]:
        record.retries = event.retries.model_dump()


def node_held_up(draft: Transition, event: NodeHeldUp, settings: EngineSettings) -> None:
    """Record the reader that a node waits for."""
    record = _heard_from(draft, event, settings)
    if record is None:
        return
    record.held_up_by = None if event.reader is None else (event.reader, event.batches)


def node_succeeded(draft: Transition, event: NodeSucceeded, settings: EngineSettings) -> None:
    """Finish a node with the result of any attempt that was issued, and start the node with which
    its worker goes on. The end of a node that is being stopped for a resolution counts, and its
    result does not.
    """
    counts = _attempt_succeeded(draft, event, settings)
    if event.next is not None and counts:
        start_next(draft, event, event.next, settings)
    elif event.next is not None:
        refuse_next(draft, event, event.next)
    if counts and draft.mark(event.index) == Mark.CANCELLING:
        end_cancelled(draft, event.index, settings)


def _attempt_succeeded(draft: Transition, event: NodeSucceeded, settings: EngineSettings) -> bool:
    """Finish a node, and return whether this success counts. The current attempt fails if it has
    exceeded a limit. A node that is being stopped for a resolution is not finished.
    """
    if (
        _is_foreign(draft, event)
        or _is_beside_holder(draft, event)
        or has_exceeded_limit(
            draft.task.spec, event, draft.mark(event.index), draft.record(event.index)
        )
    ):
        draft.ignored = True
        return False
    index = event.index
    is_resolved = draft.record(index).resolution is not None
    if is_resolved or resolved_before(draft, index) is not None:
        draft.ignored = event.attempt != draft.record(index).attempt
        return not draft.ignored
    record = record_start(draft, index, event.worker_id, event.started_at, settings)
    if _is_overdue(draft, event):
        record.metrics = event.metrics or record.metrics
        fail_overdue(draft, index, settings)
        return False
    record.worker_id = event.worker_id
    record.started_at = event.started_at
    draft.started_at = draft.started_at or event.started_at
    record.result = event.result
    if record.sharded_since is None:
        record.metrics = event.metrics or None
        record.skipped = event.skipped
        record.batches = event.batches
        record.pulled = event.pulled
    else:  # the sums over its shards are known, and it had read everything before its end
        record.metrics = {**(record.metrics or {}), **event.metrics} or None
        record.pulled = True
    record.in_batches = event.in_batches
    record.retries = None
    record.kept = event.kept
    if event.kept and event.batches and not record.has_batch:
        record.has_batch = True
        draft.note(index, "batch", None, at=event.at)
    _finish(draft, event, record, settings)
    return True


def function_returned(draft: Transition, event: FunctionReturned, settings: EngineSettings) -> None:
    """Apply the vars operations of a coordinator function, and finish its node. The current attempt
    fails, and its operations are dropped, if it has exceeded a limit.
    """
    if _is_foreign(draft, event):
        draft.ignored = True
        return
    record = draft.record(event.index)
    if record.resolution is not None:
        if event.attempt == record.attempt:
            end_cancelled(draft, event.index, settings)
        else:
            draft.ignored = True
        return
    if _is_overdue(draft, event):
        fail_overdue(draft, event.index, settings)
        return
    if event.ops:
        try:
            draft.vars = apply_vars(draft.vars, event.ops)
        except VarsError as error:
            failure = FunctionFailed(
                event.index,
                event.attempt,
                event.token,
                event.at,
                error.reason_code,
                error.permanent,
                str(error),
            )
            function_failed(draft, failure, settings)
            return
        draft.vars_changed = True
    record = draft.edit(event.index)
    record.result = event.result
    if event.ending is None or draft.outcome is not None:
        _finish(draft, event, record, settings)
        return
    record.ended_task = True
    _set_outcome(draft, event, event.ending)
    _finish(draft, event, record, settings)
    stop_everything(draft, task_stop_code(draft), settings)


def _is_overdue(draft: Transition, event: NodeSucceeded | FunctionReturned) -> bool:
    """Return whether a success is of the current attempt, which has exceeded a limit before."""
    record = draft.record(event.index)
    return record.overdue and event.attempt == record.attempt


def _set_outcome(draft: Transition, event: FunctionReturned, ending: TaskEnding) -> None:
    """End the main phase as a coordinator function requests."""
    draft.outcome = ending.status
    draft.output = TaskOutput(value=event.result, ended=True)
    draft.error = None
    if ending.status is TaskStatus.FAILED:
        name = draft.task.spec.plan.ids[event.index]
        draft.error = ending.error or f"node {name!r} ended the task"
    elif ending.status is TaskStatus.CANCELLED:
        draft.reason = ending.error or ""


def node_failed(draft: Transition, event: NodeFailed, settings: EngineSettings) -> None:
    """Fail the current attempt."""
    if not _is_current(draft, event):
        draft.ignored = True
        return
    record = record_start(draft, event.index, event.worker_id, event.started_at, settings)
    record.metrics = event.metrics or record.metrics
    fail_attempt(
        draft,
        event.index,
        event.reason_code,
        event.error,
        settings,
        permanent=event.permanent,
        parked=event.parked,
    )


def function_failed(draft: Transition, event: FunctionFailed, settings: EngineSettings) -> None:
    """Fail the current attempt of a coordinator function."""
    if not _is_current(draft, event):
        draft.ignored = True
        return
    fail_attempt(
        draft, event.index, event.reason_code, event.error, settings, permanent=event.permanent
    )


def node_stopped(draft: Transition, event: NodeStopped, settings: EngineSettings) -> None:
    """Fail an attempt that its worker stopped, or end a node that was being cancelled."""
    if not _is_current(draft, event):
        draft.ignored = True
    else:
        record = draft.edit(event.index)
        record.metrics = event.metrics or record.metrics
        fail_attempt(
            draft,
            event.index,
            "stopped",
            "the worker stopped the run without a cancellation",
            settings,
        )


def node_released(draft: Transition, event: NodeReleased, settings: EngineSettings) -> None:
    """Queue a node again whose attempt was handed back. It keeps its progress."""
    if not _is_current(draft, event):
        draft.ignored = True
        return
    if draft.mark(event.index) == Mark.CANCELLING or draft.record(event.index).overdue:
        fail_attempt(draft, event.index, "stopped", "its worker handed it back", settings)
        return
    record = draft.edit(event.index)
    record.progress = event.progress if event.progress is not None else record.progress
    record.retries = event.retries.model_dump() if event.retries is not None else record.retries
    _hand_back(draft, event.index, {"released_by": event.worker_id})


def _hand_back(draft: Transition, index: int, data: Mapping[str, str] | None) -> None:
    """Queue a node again. Its attempt does not count."""
    record = draft.edit(index)
    record.handovers += 1
    record.attempt -= 1
    draft.move(index, Mark.READY, data=data)
    draft.queue(index)


def _is_beside_holder(draft: Transition, event: NodeSucceeded) -> bool:
    """Return whether an earlier attempt has succeeded while the current one holds a place. The
    node cannot end before the current one, which has a result of its own soon.
    """
    record = draft.record(event.index)
    return (
        event.attempt != record.attempt
        and draft.mark(event.index) in ATTEMPTED
        and draft.task.spec.holds_place(event.index, record)
    )


def has_exceeded_limit(spec: TaskSpec, event: NodeSucceeded, mark: int, record: NodeRecord) -> bool:
    """Return whether a success is of the last attempt, which has failed because of a limit while it
    held a place. Then its success has been refused: this is the report of its end once more. Such
    an attempt was given time to end by itself.
    """
    return (
        event.attempt == record.attempt
        and mark not in ATTEMPTED
        and record.reason_code in LIMIT_CODES
        and (spec.is_exclusive(event.index) or record.cancel_by is not None)
    )


def _heard_from(
    draft: Transition,
    event: NodeProgressed | BatchStored | BatchesRetried | NodeHeldUp,
    settings: EngineSettings,
) -> NodeRecord | None:
    """Record that the current attempt runs, and return its record. Return None if the report is of
    another attempt, and so ignored.
    """
    if not _is_current(draft, event):
        draft.ignored = True
        return None
    record = record_start(draft, event.index, event.worker_id, event.at, settings)
    record.heard_at = draft.now
    return record


def _is_current(draft: Transition, event: WorkerReport | FunctionFailed | CommandWithdrawn) -> bool:
    """Return whether a report is about the current attempt of a node in a state for such a
    report.
    """
    task, index = draft.task, event.index
    if index >= len(task.marks) or draft.mark(index) not in NODE_REPORTS[type(event)]:
        return False
    record = draft.record(index)
    return event.attempt == record.attempt and compare_digest(
        task.spec.current_token(index, record), event.token
    )


def _is_foreign(draft: Transition, event: NodeSucceeded | FunctionReturned) -> bool:
    """Return whether a success is of no attempt that was issued, or its node is in no state for a
    success.
    """
    task = draft.task
    if event.index >= len(task.marks) or draft.mark(event.index) not in NODE_REPORTS[type(event)]:
        return True
    return not task.issued_token_matches(
        event.index, draft.record(event.index), event.attempt, event.token
    )


def _finish(
    draft: Transition,
    event: NodeSucceeded | FunctionReturned,
    record: NodeRecord,
    settings: EngineSettings,
) -> None:
    """Finish a node, and pass its end on to its children."""
    index = event.index
    if event.attempt != record.attempt and draft.mark(index) == Mark.RUNNING:
        token = draft.task.spec.current_token(index, record)
        draft.effects.append(
            SendCancel(index, record.attempt, token, "an earlier attempt finished first")
        )
    data = {"skipped_batches": record.skipped} if record.skipped else None
    finish_node(draft, index, settings, at=event.at, data=data)
