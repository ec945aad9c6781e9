"""The life of a node: how it begins, what is reported of it, how it ends and what that means for
those below.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from hmac import compare_digest
from typing import Any

from flowkit._engine.effects import (
    CallFunction,
    DropLetter,
    EvaluateCondition,
    KeepLetter,
    SendCancel,
    SendCommand,
    TellReaders,
)
from flowkit._engine.events import (
    ConditionDelayed,
    ConditionEvaluated,
    FunctionFailed,
    FunctionReturned,
)
from flowkit._engine.readiness import (
    BROKEN,
    SKIPPED_AS,
    TAKEN,
    Readiness,
    edge_outcomes,
    handles_failure,
    never_because,
    readiness,
)
from flowkit._engine.retries import retry_delay
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import stop_cause
from flowkit._engine.transition import Transition
from flowkit._engine.transition_tables import NODE_REPORTS
from flowkit._engine.vars import apply as apply_vars
from flowkit.errors import VarsError
from flowkit.graph import Plan
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    WorkerReport,
)
from flowkit.task import ENDED, IN_FLIGHT, UNBEGUN, Mark, NodeRecord, TaskStatus

COORDINATOR_FUNCTION = "coordinator_fn"

# ---------------------------------------------------------------- beginning


def consider(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Let a waiting node go on if its fan-in holds, or skip it if it never will."""
    plan = draft.task.spec.plan
    match readiness(plan.need[index], len(plan.parents[index]), *draft.count(index)):
        case Readiness.START:
            make_ready(draft, index)
        case Readiness.WAIT if _may_stream(draft, index):
            make_ready(draft, index)
        case Readiness.NEVER:
            skip(draft, index, never_because(draft.count(index)[BROKEN]), settings)


def make_ready(draft: Transition, index: int) -> None:
    """The fan-in holds: evaluate the node's ``when``, if it has one, else let it start."""
    if draft.task.spec.plan.nodes[index].when is not None:
        draft.move(index, Mark.CHECKING)
        draft.effects.append(EvaluateCondition(index))
        return
    draft.move(index, Mark.READY)
    draft.queue(index)


def begin_ready_nodes(draft: Transition, settings: EngineSettings) -> None:
    """Issue commands while there is room."""
    if draft.paused or draft.outcome is not None:
        return
    while draft.in_flight < settings.max_in_flight:
        index = draft.next_ready()
        if index is None:
            return
        _issue(draft, index, settings)


def _issue(draft: Transition, index: int, settings: EngineSettings) -> None:
    now = draft.now
    node = draft.task.spec.plan.nodes[index]
    record = draft.edit(index)
    record.attempt = max(record.attempt + 1, record.first_attempt)
    record.issued_at = now
    record.first_issued_at = record.first_issued_at or now
    record.sent = False
    record.place = None
    record.claimed = settings.sends
    record.confirmed_at = None
    record.worker_id = record.started_at = record.heard_at = record.next_retry_at = (
        record.finished_at
    ) = None
    if node.type == COORDINATOR_FUNCTION:
        draft.move(index, Mark.RUNNING, data=_attempt(record))
        record.started_at = now
        draft.started_at = draft.started_at or now
        draft.effects.append(CallFunction(index, record.attempt))
        limit = node.timeouts.start_to_close_sec
    else:
        draft.move(index, Mark.ISSUED, data=_attempt(record))
        draft.effects.append(SendCommand(index, record.attempt))
        limit = node.timeouts.schedule_to_start_sec
    draft.wake(now + (settings.resend_sec if limit is None else min(limit, settings.resend_sec)))
    if (
        node.on_satisfied == "cancel"
        and 0 <= draft.task.spec.plan.need[index] <= draft.count(index)[TAKEN]
    ):
        _cancel_parents(draft, [index], settings)


def _attempt(record: NodeRecord) -> dict[str, Any] | None:
    return {"attempt": record.attempt} if record.attempt > 1 else None


def condition_evaluated(
    draft: Transition, event: ConditionEvaluated, settings: EngineSettings
) -> None:
    if draft.mark(event.index) not in NODE_REPORTS[ConditionEvaluated] or (
        event.since is not None and event.since != draft.record(event.index).issued_at
    ):
        draft.ignored = True
    elif event.error is not None:
        record = draft.edit(event.index)
        record.reason_code, record.error = "bad_condition", event.error
        fail_for_good(draft, event.index, settings)
    elif event.value:
        draft.move(event.index, Mark.READY)
        draft.queue(event.index)
    else:
        skip(draft, event.index, "condition_false", settings)


def condition_delayed(draft: Transition, event: ConditionDelayed, settings: EngineSettings) -> None:
    """Note since when a condition is evaluated beside other work, and look again later: the
    coordinator may die meanwhile.
    """
    if draft.mark(event.index) not in NODE_REPORTS[ConditionDelayed] or is_delayed(
        draft.record(event.index)
    ):
        draft.ignored = True
        return
    draft.edit(event.index).issued_at = draft.now
    draft.wake(draft.now + settings.resend_sec)


def is_delayed(record: NodeRecord | None) -> bool:
    """Whether a node's condition was delayed, if the node is still being checked."""
    return record is not None and record.issued_at > 0


# ---------------------------------------------------------------- reports


def _counts_now(draft: Transition, event: WorkerReport | FunctionFailed) -> bool:
    """Whether a report is of the present attempt of a node that is where such a report makes
    sense.
    """
    task, index = draft.task, event.index
    if index >= len(task.marks) or draft.mark(index) not in NODE_REPORTS[type(event)]:
        return False
    record = draft.record(index)
    return event.attempt == record.attempt and compare_digest(
        task.spec.token(index, record.attempt, record.handovers), event.token
    )


def _is_foreign(draft: Transition, event: NodeSucceeded | FunctionReturned) -> bool:
    """Whether a success is not of any attempt that was issued, or of a node that is not where a
    success makes sense.
    """
    task = draft.task
    if event.index >= len(task.marks) or draft.mark(event.index) not in NODE_REPORTS[type(event)]:
        return True
    return not task.issued_token_matches(
        event.index, draft.record(event.index), event.attempt, event.token
    )


def node_started(draft: Transition, event: NodeStarted, settings: EngineSettings) -> None:
    if _counts_now(draft, event):
        _begin(draft, event.index, event.worker_id, event.at, settings)
        return
    draft.ignored = True
    if event.index < len(draft.task.marks) and draft.mark(event.index) == Mark.CANCELLED:
        # The command was on its way when the node was cancelled: whoever began it now is told to
        # stop.
        code, cause = stop_cause(draft, event.index, draft.record(event.index).reason_code)
        draft.effects.append(SendCancel(event.index, event.attempt, event.token, cause or code))


def _begin(
    draft: Transition, index: int, worker_id: str, at: float, settings: EngineSettings
) -> NodeRecord:
    """The present attempt runs, whatever of its reports came first."""
    record = draft.edit(index)
    if draft.mark(index) != Mark.ISSUED:
        return record
    now = draft.now
    draft.move(index, Mark.RUNNING, at=at, data={"worker_id": worker_id})
    record.worker_id = worker_id
    # Between the command and its report: a worker whose clock is wrong neither hastens nor delays a
    # time-out.
    record.started_at = min(max(at, record.issued_at), now)
    record.heard_at = now
    record.sent = True
    record.place = None
    record.claimed = False
    record.confirmed_at = None
    draft.started_at = draft.started_at or record.started_at
    timeouts = draft.task.spec.plan.nodes[index].timeouts
    for seconds in (timeouts.start_to_close_sec, timeouts.heartbeat_sec, settings.lease_ttl_sec):
        if seconds is not None:
            draft.wake(now + seconds)
    return record


def node_progressed(draft: Transition, event: NodeProgressed, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    record = _begin(draft, event.index, event.worker_id, event.at, settings)
    record.heard_at = draft.now
    record.progress = event.progress
    draft.note(event.index, "progress", None, event.progress, at=event.at)


def batch_stored(draft: Transition, event: BatchStored, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    record = _begin(draft, event.index, event.worker_id, event.at, settings)
    record.heard_at = draft.now
    if record.has_batch:
        return
    record.has_batch = True
    draft.note(event.index, "batch", None, at=event.at)
    plan = draft.task.spec.plan
    for edge in plan.children[event.index]:
        child = edge.node
        if (
            edge.streams
            and draft.mark(child) == Mark.WAITING
            and (not plan.mixed[child] or _may_stream(draft, child))
        ):
            make_ready(draft, child)


def batches_retried(draft: Transition, event: BatchesRetried, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    record = _begin(draft, event.index, event.worker_id, event.at, settings)
    record.heard_at = draft.now
    if event.retries.number > (record.retries or {"number": 0})["number"]:
        record.retries = event.retries.model_dump()


def node_succeeded(draft: Transition, event: NodeSucceeded, settings: EngineSettings) -> None:
    if _is_foreign(draft, event):
        draft.ignored = True
        return
    index = event.index
    record = _begin(draft, index, event.worker_id, event.started_at, settings)
    record.worker_id = event.worker_id
    record.started_at = event.started_at
    draft.started_at = draft.started_at or event.started_at
    record.result = event.result
    record.metrics = event.metrics or None
    record.skipped = event.skipped
    record.batches = event.batches
    record.in_batches = event.in_batches
    record.pulled = event.pulled
    record.retries = None
    _finish(draft, event, settings)


def function_returned(draft: Transition, event: FunctionReturned, settings: EngineSettings) -> None:
    if _is_foreign(draft, event):
        draft.ignored = True
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
    draft.edit(event.index).result = event.result
    _finish(draft, event, settings)


def node_failed(draft: Transition, event: NodeFailed, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    record = _begin(draft, event.index, event.worker_id, event.started_at, settings)
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
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    fail_attempt(
        draft, event.index, event.reason_code, event.error, settings, permanent=event.permanent
    )


def node_stopped(draft: Transition, event: NodeStopped, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
    else:
        record = draft.edit(event.index)
        record.metrics = event.metrics or record.metrics
        fail_attempt(
            draft,
            event.index,
            "stopped",
            "the worker stopped the run without being asked to",
            settings,
        )


def node_released(draft: Transition, event: NodeReleased, settings: EngineSettings) -> None:
    if not _counts_now(draft, event):
        draft.ignored = True
        return
    if draft.mark(event.index) == Mark.CANCELLING:
        end_cancelled(draft, event.index, settings)
        return
    record = draft.edit(event.index)
    record.progress = event.progress if event.progress is not None else record.progress
    record.retries = event.retries.model_dump() if event.retries is not None else record.retries
    record.handovers += 1
    record.attempt -= 1
    draft.move(event.index, Mark.READY, data={"released_by": event.worker_id})
    draft.queue(event.index)


# ---------------------------------------------------------------- failing


def fail_attempt(
    draft: Transition,
    index: int,
    reason_code: str,
    error: str,
    settings: EngineSettings,
    *,
    permanent: bool = False,
    parked: bool = False,
) -> None:
    """Retry the failed present attempt later if the policy allows; else fail the node, and keep a
    dead letter if none is ``parked``.
    """
    if draft.mark(index) == Mark.CANCELLING:
        end_cancelled(draft, index, settings)
        return
    record = draft.edit(index)
    record.reason_code, record.error = reason_code, error
    delay = retry_delay(
        draft.task.spec.plan.nodes[index].retry_policy,
        attempts_made=record.attempt - record.first_attempt + 1,
        reason_code=reason_code,
        permanent=permanent,
        spent_sec=draft.now - record.first_issued_at,
        token=draft.task.spec.token(index, record.attempt, record.handovers),
    )
    if delay is None:
        _drop_letter(draft, index)
        if not parked:
            record.letter = record.attempt
            draft.letters.append(KeepLetter(index))
        fail_for_good(draft, index, settings)
        return
    record.next_retry_at = draft.now + delay
    draft.move(
        index,
        Mark.DEFERRED,
        data={"reason_code": reason_code, "error": error, "attempt": record.attempt},
    )
    draft.wake(record.next_retry_at)


def _drop_letter(draft: Transition, index: int) -> None:
    """Drop the dead letter of an earlier run of the node, if there is one."""
    record = draft.edit(index)
    if record.letter:
        draft.letters.append(DropLetter(index, record.letter))
        record.letter = 0


def fail_for_good(draft: Transition, index: int, settings: EngineSettings) -> None:
    """No attempt is left. Without a branch for it, the graph's policy decides what becomes of the
    task.
    """
    record = draft.edit(index)
    record.finished_at = draft.now
    plan = draft.task.spec.plan
    draft.move(index, Mark.FAILED, data={"reason_code": record.reason_code, "error": record.error})
    if not handles_failure(plan, index):
        if draft.error is None:
            draft.error = failure_sentence(plan, index, record)
        if plan.on_node_failure == "stop":
            draft.outcome = TaskStatus.FAILED
            stop_everything(draft, "task_failed", settings)
            return
    _pass_on(draft, [index], settings)


def failure_sentence(plan: Plan, index: int, record: NodeRecord) -> str:
    return f"node {plan.ids[index]!r} failed: {record.reason_code}: {record.error}"


def stop_everything(draft: Transition, reason_code: str, settings: EngineSettings) -> None:
    """What has not begun never begins; what runs is told to stop."""
    draft.paused = False
    for index in range(len(draft.task.marks)):
        mark = draft.mark(index)
        if mark not in ENDED and mark != Mark.CANCELLING:
            _stop(draft, index, mark, reason_code, settings)


def _cancel_parents(draft: Transition, satisfied: Sequence[int], settings: EngineSettings) -> None:
    """Stop the parents of these nodes that have not ended, except those that a retry requires.

    The other children of these parents are told when the parents have ended.
    """
    ended: list[int] = []
    for index in satisfied:
        for edge in draft.task.spec.plan.parents[index]:
            mark = draft.mark(edge.node)
            if mark in ENDED or mark == Mark.CANCELLING or draft.record(edge.node).required:
                continue
            _stop(draft, edge.node, mark, "not_needed", settings)
            if draft.mark(edge.node) in ENDED:
                ended.append(edge.node)
    _pass_on(draft, ended, settings)


def _stop(
    draft: Transition, index: int, mark: int, reason_code: str, settings: EngineSettings
) -> None:
    has_record = index in draft.task.records or index in draft.records
    if (
        mark in UNBEGUN and not has_record and reason_code != "not_needed"
    ):  # nodes without a record are stopped with the task; the task holds the reason
        draft.move(index, Mark.CANCELLED, data={"reason_code": reason_code})
        return
    record = draft.edit(index)
    record.reason_code = reason_code
    if mark in (Mark.ISSUED, Mark.RUNNING):
        token = draft.task.spec.token(index, record.attempt, record.handovers)
        draft.effects.append(
            SendCancel(
                index,
                record.attempt,
                token,
                stop_cause(draft, index, reason_code)[1] or reason_code,
            )
        )
    if mark == Mark.RUNNING:
        record.cancel_by = draft.now + settings.cancel_grace_sec
        draft.wake(min(draft.now + RESEND_CANCEL_SEC, record.cancel_by))
        draft.move(index, Mark.CANCELLING, data={"reason_code": reason_code})
        return
    record.finished_at = draft.now
    draft.move(index, Mark.CANCELLED, data={"reason_code": reason_code})


RESEND_CANCEL_SEC = 1.0


# ---------------------------------------------------------------- ending


def _finish(
    draft: Transition, event: NodeSucceeded | FunctionReturned, settings: EngineSettings
) -> None:
    index = event.index
    record = draft.edit(index)
    if event.attempt != record.attempt and draft.mark(index) == Mark.RUNNING:
        token = draft.task.spec.token(index, record.attempt, record.handovers)
        draft.effects.append(
            SendCancel(index, record.attempt, token, "an earlier attempt finished first")
        )
    record.reason_code = record.error = None
    record.finished_at = event.at
    record.next_retry_at = None
    _drop_letter(draft, index)
    draft.move(
        index,
        Mark.FINISHED,
        at=event.at,
        data={"skipped_batches": record.skipped} if record.skipped else None,
    )
    _pass_on(draft, [index], settings)


def end_cancelled(draft: Transition, index: int, settings: EngineSettings) -> None:
    draft.edit(index).finished_at = draft.now
    draft.move(index, Mark.CANCELLED)
    _pass_on(draft, [index], settings)


def skip(draft: Transition, index: int, reason_code: str, settings: EngineSettings) -> None:
    """The node never starts; nor do those that stand on it alone."""
    _mark_skipped(draft, index, reason_code)
    _pass_on(draft, [index], settings)


def _mark_skipped(draft: Transition, index: int, reason_code: str) -> None:
    record = draft.edit(index)
    record.reason_code = reason_code
    record.finished_at = draft.now
    draft.move(index, SKIPPED_AS[reason_code], data={"reason_code": reason_code})


def _pass_on(draft: Transition, ended: Sequence[int], settings: EngineSettings) -> None:
    """Tell the children that nodes have ended, and end the children that cannot go on, down the
    graph.

    A child is decided after all of its parents that end with it, so the order of edges in the
    document makes no difference.
    """
    if draft.outcome is not None:
        return
    doomed, satisfied = list[tuple[int, int]](), list[int]()
    for index in ended:
        _tell_children(draft, index, doomed, satisfied)
    while doomed:
        child = heappop(doomed)[1]
        mark, record = draft.mark(child), draft.record(child)
        if mark in ENDED or mark == Mark.CANCELLING:
            continue
        reason_code = never_because(draft.count(child)[BROKEN])
        if mark in UNBEGUN and record.attempt < record.first_attempt:
            _mark_skipped(draft, child, reason_code)
        else:
            _stop(draft, child, mark, reason_code, settings)
        if draft.mark(child) in ENDED:
            _tell_children(draft, child, doomed, satisfied)
    if satisfied:
        _cancel_parents(draft, satisfied, settings)


def _tell_children(
    draft: Transition, index: int, doomed: list[tuple[int, int]], satisfied: list[int]
) -> None:
    """Count the node's end for each child and start the children that may start.

    Children that cannot go on are added to the heap ``doomed``, behind their place in the order of
    the graph. Children that run already and do not need their other parents any more are added to
    ``satisfied``.
    """
    plan = draft.task.spec.plan
    outcomes = edge_outcomes(plan, index, draft.mark(index))
    read = False
    for edge in plan.children[index]:
        child = edge.node
        counts = draft.count(child)
        outcome = outcomes[edge.route]
        counts[outcome] += 1
        child_mark = draft.mark(child)
        if child_mark in ENDED:
            continue
        read = read or (edge.streams and child_mark in IN_FLIGHT)
        verdict = readiness(plan.need[child], len(plan.parents[child]), *counts)
        if verdict is Readiness.NEVER:
            heappush(doomed, (plan.rank[child], child))
        elif child_mark == Mark.WAITING:
            if verdict is Readiness.START or (plan.mixed[child] and _may_stream(draft, child)):
                make_ready(draft, child)
        elif (
            outcome == TAKEN
            and counts[TAKEN] == plan.need[child]
            and child_mark in IN_FLIGHT
            and plan.nodes[child].on_satisfied == "cancel"
        ):
            satisfied.append(child)
    if read:
        draft.effects.append(TellReaders(index, draft.record(index).generation))


def _may_stream(draft: Transition, child: int) -> bool:
    """Whether a waiting node may start on a batch: one is stored, and the parents it does not
    stream from have ended.
    """
    flows = False
    for edge in draft.task.spec.plan.parents[child]:
        if edge.streams:
            flows = flows or draft.record(edge.node).has_batch
        elif draft.mark(edge.node) not in ENDED:
            return False
    return flows
