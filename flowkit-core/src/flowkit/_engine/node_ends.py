"""Ends of nodes: failed, skipped, cancelled or stopped, and the effects on the nodes below them."""

from collections.abc import Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from flowkit._engine.effects import (
    DropLetter,
    KeepLetter,
    ReadArtifacts,
    RunChild,
    TellReaders,
)
from flowkit._engine.map_expansion import begun_children
from flowkit._engine.pending_effects import ends_by_proof, is_withdrawn, stop_effects
from flowkit._engine.readiness import (
    BROKEN,
    SKIPPED_AS,
    TAKEN,
    UPSTREAM_SKIPPED,
    Readiness,
    edge_outcomes,
    fails_task,
    never_because,
    readiness,
)
from flowkit._engine.retries import retry_delay
from flowkit._engine.segment_rules import promised_nodes, resolved_before, stray_after
from flowkit._engine.settings import EngineSettings
from flowkit._engine.stop_reasons import (
    MAP_ITEM_FAILED,
    RESOLVED,
    SHARD_FAILED,
    stop_cause,
    task_stop_code,
)
from flowkit._engine.transition import Transition
from flowkit.graph import Plan
from flowkit.graph._expanded_plan import is_map, is_sharded, map_of, runs_child_task
from flowkit.task import (
    ATTEMPTED,
    ENDED,
    IN_FLIGHT,
    STOPPING,
    UNBEGUN,
    Mark,
    NodeRecord,
    Phase,
    Resolution,
    TaskStatus,
)

RESEND_CANCEL_SEC = 1.0
"""Time until a cancellation is sent again."""


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
    """Retry the current attempt later if the policy allows; otherwise fail the node. An attempt
    that is overdue fails with the reason of that.

    A failed node gets a dead letter, unless the worker has ``parked`` one.
    """
    if draft.mark(index) == Mark.CANCELLING:
        end_cancelled(draft, index, settings)
        return
    record = draft.edit(index)
    if record.overdue:
        permanent = False
    else:
        record.reason_code, record.error = reason_code, error
    delay = retry_delay(
        draft.task.spec.plan.nodes[index].retry_policy,
        attempts_made=record.attempt - record.first_attempt + 1,
        reason_code=record.reason_code or reason_code,
        permanent=permanent,
        spent_sec=draft.now - record.first_issued_at,
        token=draft.task.spec.current_token(index, record),
    )
    if delay is None:
        if record.letter:
            drop_letter(draft, index, record)
        if not parked:
            _keep_letter(draft, index, record)
        fail_node(draft, index, settings)
        return
    record.next_retry_at = draft.now + delay
    draft.move(
        index,
        Mark.DEFERRED,
        data={
            "reason_code": record.reason_code,
            "error": record.error,
            "attempt": record.attempt,
        },
    )
    draft.schedule(index, record.next_retry_at)


def fail_overdue(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Fail the current attempt, which has exceeded a limit and is known to have ended."""
    record = draft.record(index)
    fail_attempt(draft, index, record.reason_code or "overdue", record.error or "", settings)


def _keep_letter(draft: Transition, index: int, record: NodeRecord) -> None:
    record.letter = record.attempt
    draft.letters.append(KeepLetter(index))


def fail_node(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Fail a node that has no attempt left. If the task fails with it, the graph's
    ``on_node_failure`` decides whether the task stops.
    """
    record = draft.edit(index)
    record.finished_at = draft.now
    plan = draft.task.spec.plan
    draft.move(index, Mark.FAILED, data={"reason_code": record.reason_code, "error": record.error})
    if index >= plan.size:
        _child_failed(draft, index, record, settings)
        return
    if draft.main_is_stopping:
        return  # it was resolved before the task was stopped for another reason
    if fails_task(plan, index):
        if draft.error is None and draft.outcome in _MAY_FINISH:
            draft.error = failure_sentence(plan, index, record)
        if plan.on_node_failure == "stop" and draft.phase is Phase.MAIN:
            draft.outcome = TaskStatus.FAILED
            stop_everything(draft, "task_failed", settings)
            return
    pass_on(draft, [index], settings)


_MAY_FINISH = (None, TaskStatus.FINISHED)
"""Outcomes of a task that has not failed otherwise, and was not cancelled."""


def _child_failed(
    draft: Transition, index: int, record: NodeRecord, settings: EngineSettings
) -> None:
    """Stop the other children of a map if it does not continue, or the other shards of a node. It
    fails when they have ended; a node has the reason of its shard.
    """
    plan = draft.task.spec.plan
    owner = map_of(plan, index)
    spec = plan.nodes[owner].map
    goes_on = spec is not None and spec.on_item_failure == "continue"
    if goes_on or draft.mark(owner) != Mark.MAPPING:
        return
    failed = draft.edit(owner)
    if failed.reason_code is not None:
        return
    if spec is None:
        stop_code, failed.reason_code, why = SHARD_FAILED, record.reason_code, record.error
    else:
        stop_code = failed.reason_code = MAP_ITEM_FAILED
        why = f"{record.reason_code}: {record.error}"
    failed.error = f"{plan.ids[index]!r} failed: {why}"
    stop_children(draft, owner, stop_code, settings)


def failure_sentence(plan: Plan, index: int, record: NodeRecord) -> str:
    """Return the error of a task that failed because of a node."""
    return f"node {plan.ids[index]!r} failed: {record.reason_code}: {record.error}"


def finish_node(
    draft: Transition,
    index: int,
    settings: EngineSettings,
    *,
    at: float | None = None,
    data: Any = None,
) -> None:
    """Finish a node, and pass its end on to its children."""
    record = draft.edit(index)
    record.reason_code = record.error = None
    record.finished_at = draft.now if at is None else at
    record.next_retry_at = None
    record.wait = None
    if record.letter:
        drop_letter(draft, index, record)
    draft.move(index, Mark.FINISHED, at=at, data=data)
    plan = draft.task.spec.plan
    undone = plan.ends is not None and index in plan.ends.undo_of and not record.cached
    if plan.ends is not None and undone and not is_map(plan, index):
        draft.edit(plan.ends.undo_of[index]).after = draft.task.seq + len(draft.log)
    pass_on(draft, [index], settings)


def drop_letter(draft: Transition, index: int, record: NodeRecord) -> None:
    """Drop the dead letter of an earlier run of the node."""
    draft.letters.append(DropLetter(index, record.letter))
    record.letter = 0


def _end_resolved(
    draft: Transition, index: int, chosen: Resolution, settings: EngineSettings
) -> None:
    """End a node with the outcome that an operator has chosen."""
    record = draft.edit(index)
    record.resolution = replace(chosen, result=None)
    record.wait = record.next_retry_at = None
    record.reason_code, record.error = RESOLVED, str(chosen)
    if chosen.outcome == "finished":
        record.result = chosen.result
        record.in_batches = True  # what it has stored is all that its readers get
        record.first_issued_at = record.first_issued_at or draft.now
        finish_node(draft, index, settings, data={"by": chosen.by})
    elif chosen.outcome == "skipped":
        skip(draft, index, RESOLVED, settings)
    else:
        if record.letter:
            drop_letter(draft, index, record)
        begun = record.attempt >= record.first_attempt
        if begun and not is_map(draft.task.spec.plan, index):
            _keep_letter(draft, index, record)
        fail_node(draft, index, settings)


def skip(draft: Transition, index: int, reason_code: str, settings: EngineSettings) -> None:
    """Skip a node, and the nodes below it that cannot start without it."""
    _mark_skipped(draft, index, reason_code)
    pass_on(draft, [index], settings)


def _mark_skipped(draft: Transition, index: int, reason_code: str) -> None:
    record = draft.edit(index)
    record.reason_code = reason_code
    record.finished_at = draft.now
    draft.move(index, SKIPPED_AS[reason_code], data={"reason_code": reason_code})


def end_cancelled(draft: Transition, index: int, settings: EngineSettings) -> None:
    """End a node whose cancellation is complete: as cancelled, or as an operator resolved it. A
    resolved node ends after the strays that its worker has begun, which then wait again.
    """
    if stray_after(draft, index) is not None:
        return
    resolved = resolved_before(draft, index)
    if resolved is not None:
        _end_strays(draft, resolved)
        end_cancelled(draft, resolved, settings)
        return
    record = draft.edit(index)
    if record.resolution is not None:
        _end_resolved(draft, index, record.resolution, settings)
        return
    record.finished_at = draft.now
    _end_stopped(draft, index, record)
    pass_on(draft, [index], settings)


def _end_strays(draft: Transition, resolved: int) -> None:
    """Let the nodes wait again that a worker has begun after a resolved node. If the task is being
    stopped, they are cancelled.
    """
    stray = stray_after(draft, resolved)
    while stray is not None:
        following = stray_after(draft, stray)
        record = draft.edit(stray)
        draft.due[stray] = None
        if draft.main_is_stopping:
            record.reason_code, record.finished_at = task_stop_code(draft), draft.now
            _end_stopped(draft, stray, record)
        else:
            record.reason_code, record.first_attempt = None, record.attempt + 1
            draft.move(stray, Mark.WAITING)
        stray = following


def _end_stopped(
    draft: Transition, index: int, record: NodeRecord, data: dict[str, Any] | None = None
) -> None:
    """End a node that was stopped: cancelled, or skipped if it had begun to read from parents that
    ended without data. Then it counts as ended without data, too.
    """
    if index < draft.task.spec.plan.size and record.reason_code == UPSTREAM_SKIPPED:
        record.error = None
        draft.move(index, Mark.SKIPPED, data={"reason_code": UPSTREAM_SKIPPED})
    else:
        draft.move(index, Mark.CANCELLED, data=data)


def stop_everything(draft: Transition, reason_code: str, settings: EngineSettings) -> None:
    """Stop all nodes of a task that have not ended."""
    draft.paused = False
    draft.end_segments()
    promised = _promised_nodes(draft)
    for index in range(draft.task.spec.plan.size):
        mark = draft.mark(index)
        if mark not in _NOT_STOPPED and index not in promised:
            stop_node(draft, index, mark, reason_code, settings)


_NOT_STOPPED = ENDED | STOPPING | {Mark.HELD}


def _promised_nodes(draft: Transition) -> set[int]:
    """Return the nodes that workers may have begun in segments. They stay open until the end of the
    node before says whether that is so.
    """
    return {
        promised
        for index in {*draft.task.records, *draft.records}
        if draft.record(index).promised and draft.mark(index) in ATTEMPTED
        for promised in promised_nodes(draft, index)
    }


def stop_node(
    draft: Transition, index: int, mark: int, reason_code: str, settings: EngineSettings
) -> None:
    """Cancel a node that has not started, and ask the worker of a running one to stop."""
    has_record = index in draft.task.records or index in draft.records
    if mark in UNBEGUN and not has_record and reason_code == task_stop_code(draft):
        # No record is needed: the node is stopped with its task, which holds the reason.
        draft.move(index, Mark.CANCELLED, data={"reason_code": reason_code})
        return
    record = draft.edit(index)
    record.reason_code = reason_code
    record.next_retry_at = None
    if mark == Mark.MAPPING:
        record.error = None
        if stop_children(draft, index, reason_code, settings):
            draft.move(index, Mark.CLOSING, data={"reason_code": reason_code})
            return
    if mark == Mark.RUNNING and runs_child_task(draft.task.spec.plan, index):
        # It ends after its child task, so that no child task runs without a node that waits for it.
        draft.effects.append(RunChild(index, record.attempt))
        draft.schedule(index, draft.now + settings.resend_sec)
        draft.move(index, Mark.CANCELLING, data={"reason_code": reason_code})
        return
    if mark in (Mark.ISSUED, Mark.RUNNING):
        cause = stop_cause(draft, index)[1]
        draft.effects += stop_effects(draft.task.spec, index, record, cause or reason_code)
    withdrawn = mark == Mark.ISSUED and is_withdrawn(draft.task.spec, index, record)
    if mark == Mark.RUNNING or withdrawn:
        give_grace(draft, index, settings)
        draft.move(index, Mark.CANCELLING, data={"reason_code": reason_code})
        return
    if record.resolution is not None:
        _end_resolved(draft, index, record.resolution, settings)
        return
    record.finished_at = draft.now
    _end_stopped(draft, index, record, {"reason_code": reason_code})


def give_grace(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Give an attempt that is asked to stop the time to end by itself."""
    record = draft.edit(index)
    record.cancel_by = draft.now + settings.cancel_grace_sec
    spec = draft.task.spec
    if spec.is_exclusive(index) and not ends_by_proof(spec, index, record):
        record.cancel_by += settings.lease_ttl_sec
    draft.schedule(index, min(draft.now + RESEND_CANCEL_SEC, record.cancel_by))


def cancel_other_parents(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Stop the parents that a node with ``on_satisfied: cancel`` does not need when it starts."""
    if 0 <= draft.task.spec.plan.need[index] <= draft.count(index)[TAKEN]:
        cancel_parents(draft, [index], settings)


def stop_children(
    draft: Transition, index: int, reason_code: str, settings: EngineSettings
) -> bool:
    """Stop the children of a map, and return whether some of them have not ended yet."""
    if index not in draft.task.maps:
        return False
    state = draft.edit_map(index)
    places = state.places()
    changed = [child for child in draft.marks if any(child in place for place in places)]
    for child in sorted({*begun_children(draft.task.marks, state), *changed}):
        mark = draft.mark(child)
        if mark not in ENDED and mark != Mark.CANCELLING:
            stop_node(draft, child, mark, reason_code, settings)
    draft.end_unbegun_children(index)
    return state.open > 0


def cancel_parents(draft: Transition, satisfied: Sequence[int], settings: EngineSettings) -> None:
    """Stop the parents of satisfied nodes, except those that have ended or that a retry requires.

    The other children of a parent see its end once it has stopped.
    """
    ended: list[int] = []
    for index in satisfied:
        for edge in draft.task.spec.plan.parents[index]:
            mark = draft.mark(edge.node)
            if mark in ENDED or mark in STOPPING or draft.record(edge.node).required:
                continue
            stop_node(draft, edge.node, mark, "not_needed", settings)
            if draft.mark(edge.node) in ENDED:
                ended.append(edge.node)
    pass_on(draft, ended, settings)


def pass_on(draft: Transition, ended: Sequence[int], settings: EngineSettings) -> None:
    """Report the end of nodes to their children, and end the children that cannot start any more,
    down the graph.

    A child is decided after all of its parents that end with it, so the order of edges in the
    document makes no difference.
    """
    if draft.main_is_stopping:
        return
    blocked: list[tuple[int, int]] = []
    satisfied: list[int] = []
    for index in ended:
        _report_end(draft, index, blocked, satisfied)
    while blocked:
        child = heappop(blocked)[1]
        mark, record = draft.mark(child), draft.record(child)
        if mark in ENDED or mark in STOPPING:
            continue
        if record.resolution is not None:
            _end_resolved(draft, child, record.resolution, settings)
            continue
        reason_code = never_because(draft.count(child)[BROKEN])
        if mark in _MAY_BE_UNBEGUN and record.attempt < record.first_attempt:
            _mark_skipped(draft, child, reason_code)
        else:
            stop_node(draft, child, mark, reason_code, settings)
        if draft.mark(child) in ENDED:
            _report_end(draft, child, blocked, satisfied)
    if satisfied:
        cancel_parents(draft, satisfied, settings)


_MAY_BE_UNBEGUN = UNBEGUN | {Mark.ASKING, Mark.DEFERRED}
"""Marks of nodes of which some have begun no attempt: a node may wait for a place."""


def _report_end(
    draft: Transition, index: int, blocked: list[tuple[int, int]], satisfied: list[int]
) -> None:
    """Count the end of a node for each child, and start the children that may start.

    Children whose fan-in has become impossible are pushed on the heap ``blocked``, by their place
    in the order of the graph. Running children that do not need their other parents any more are
    added to ``satisfied``.
    """
    plan = draft.task.spec.plan
    children = plan.children[index]
    if not children:
        return
    outcomes = edge_outcomes(plan, index, draft.mark(index))
    has_readers = False
    for edge in children:
        child = edge.node
        counts = draft.count(child)
        outcome = outcomes[edge.route]
        counts[outcome] += 1
        child_mark = draft.mark(child)
        if child_mark in ENDED:
            continue
        runs = child_mark in IN_FLIGHT or (child_mark == Mark.MAPPING and is_sharded(plan, child))
        has_readers = has_readers or (edge.streams and runs)
        verdict = readiness(plan.need[child], len(plan.parents[child]), *counts)
        if verdict is Readiness.NEVER:
            heappush(blocked, (plan.rank[child], child))
        elif child_mark == Mark.WAITING:
            if verdict is Readiness.START or (plan.mixed[child] and draft.may_stream(child)):
                draft.make_ready(child)
        elif (
            outcome == TAKEN
            and counts[TAKEN] == plan.need[child]
            and runs
            and plan.nodes[child].on_satisfied == "cancel"
        ):
            satisfied.append(child)
        if child_mark == Mark.MAPPING and plan.map_sources.get(child) == index:
            draft.effects.append(ReadArtifacts(child, draft.record(child).attempt))
    if has_readers:
        draft.effects.append(TellReaders(index, draft.record(index).generation))
