"""Effects that follow from what is recorded about a task and its nodes."""

from collections.abc import Iterator

from flowkit._engine.effects import (
    AskKey,
    CallFunction,
    CollectMap,
    Effect,
    EndSegments,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    NameKey,
    OpenMap,
    PublishChanges,
    ReadArtifacts,
    ReadEnds,
    ReturnKey,
    RunChild,
    SendCancel,
    SendCommand,
    TellParent,
    WithdrawCommand,
)
from flowkit._engine.readiness import awaits_output
from flowkit._engine.segment_rules import TaskState, has_segments, is_called_back
from flowkit._engine.stop_reasons import stop_cause
from flowkit.graph._expanded_plan import is_undo, runs_child_task
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.task import (
    CLAIM_KINDS,
    WHOLE_TASK,
    ClaimKind,
    KeyClaim,
    Mark,
    NodeRecord,
    Task,
    TaskSpec,
)


def lacks_arguments(record: NodeRecord) -> bool:
    """Return whether a deferred node has begun, and its arguments are not evaluated yet."""
    return record.wait is None and record.next_retry_at is None and record.queued_for is None


def pending_effects(task: Task, *, claimed: bool = True) -> list[Effect]:
    """Return the effects of a stored task that may not have been carried out.

    After a crash this restores all effects except two kinds that no result depends on: notices to
    readers, which also poll, and cancellations of attempts whose end no longer matters. Without
    ``claimed``, commands that another coordinator is about to send are left out. If that
    coordinator has crashed, a timer finds them.
    """
    effects: list[Effect] = [*_returns(task)]
    if task.publication is not None and 0 <= task.publication.seq < task.seq:
        effects.append(PublishChanges(task.seq))
    if task.key is not None and task.key.is_asking:
        effects.append(question(WHOLE_TASK, task.key))
    if task.terminal:
        return effects if task.spec.parent is None else [*effects, TellParent()]
    if awaits_output(task):
        effects.append(EvaluateOutput())
    plan = task.spec.plan
    if ends_segments(task):
        effects.append(EndSegments())
    for index, record in task.records.items():
        mark = task.marks[index]
        if mark == Mark.ISSUED and is_called_back(task, index):
            effects.append(withdrawal_of(task, index))
        if record.overdue:
            effects += stop_effects(task.spec, index, record, record.error or "")
        elif mark == Mark.ISSUED and not record.sent and (claimed or not record.claimed):
            effects.append(SendCommand(index, record.attempt, record.handovers))
        elif mark == Mark.ASKING:
            effects.append(node_question(index, record))
        elif runs_child_task(plan, index):
            if mark in (Mark.RUNNING, Mark.CANCELLING):
                effects.append(RunChild(index, record.attempt))
        elif mark == Mark.RUNNING and plan.nodes[index].type == COORDINATOR_FUNCTION:
            effects.append(CallFunction(index, record.attempt))
        elif mark == Mark.MAPPING:
            effects += map_effects(task, index, record.attempt)
        elif mark == Mark.CANCELLING:
            code, cause = stop_cause(task, index)
            effects += stop_effects(task.spec, index, record, cause or code)
        elif mark == Mark.DEFERRED and lacks_arguments(record):
            effects.append(EvaluateArguments(index, record.attempt))
    start = task.marks.find(Mark.CHECKING)
    while start >= 0:
        effects.append(EvaluateCondition(start))
        start = task.marks.find(Mark.CHECKING, start + 1)
    return effects


def ends_segments(task: Task) -> bool:
    """Return whether a client may have paused or stopped a task, or resolved one of its nodes,
    while a worker ran a segment.
    """
    return has_segments(task) and (
        task.paused
        or task.outcome is not None
        or any(record.resolution for record in task.records.values())
    )


def withdrawals_of_carriers(task: Task) -> list[WithdrawCommand]:
    """Return the effects that withdraw the commands of a task that no worker is known to have
    started, and that carry other nodes: their worker could begin these.
    """
    return [
        withdrawal_of(task, index)
        for index, record in task.records.items()
        if record.promised and task.marks[index] == Mark.ISSUED
    ]


def withdrawal_of(task: TaskState, index: int) -> WithdrawCommand:
    """Return the effect that withdraws the command of a node's attempt."""
    record = task.record(index)
    return WithdrawCommand(index, record.attempt, task.spec.current_token(index, record))


def node_question(index: int, record: NodeRecord) -> AskKey | NameKey:
    """Return the effect that goes on with the claim of a node without an answer."""
    kind = record.asks_for or "key"
    claim = record.claim(kind)
    assert claim is not None
    return question(index, claim, kind)


def question(index: int, claim: KeyClaim, kind: ClaimKind = "key") -> AskKey | NameKey:
    """Return the effect that goes on with a claim without an answer."""
    if claim.state == "unnamed":
        return NameKey(index, claim.number, kind)
    return AskKey(index, claim.number, kind)


def stop_effects(spec: TaskSpec, index: int, record: NodeRecord, reason: str) -> list[Effect]:
    """Return the effects that stop an attempt. If no worker is known to have started it, and a
    worker may not begin it unseen, its command is withdrawn.
    """
    token = spec.current_token(index, record)
    effects: list[Effect] = [SendCancel(index, record.attempt, token, reason)]
    if record.worker_id is None and is_withdrawn(spec, index, record):
        effects.append(WithdrawCommand(index, record.attempt, token))
    return effects


def is_withdrawn(spec: TaskSpec, index: int, record: NodeRecord) -> bool:
    """Return whether the command of an attempt is withdrawn before the attempt counts as stopped.
    Otherwise a worker could run it unseen: with a place of a key or a rate, before it begins the
    nodes of its segment, or beside the nodes that start when it has ended (those after a resolved
    node, undos, and the nodes of ``finally``).
    """
    if spec.plan.nodes[index].type == COORDINATOR_FUNCTION:
        return False
    return (
        record.promised > 0
        or record.resolution is not None
        or spec.plan.ends is not None
        or spec.holds_place(index, record)
    )


def ends_by_proof(spec: TaskSpec, index: int, record: NodeRecord) -> bool:
    """Return whether an attempt counts as ended only when that is proved: by its report, by the
    loss of its worker, or because its command was withdrawn before a worker started it. Until then
    no other node may have its place of a key, and a worker may begin it unseen by its rate. A
    function in a coordinator has no worker whose loss could be seen, so time ends it.
    """
    is_function = spec.plan.nodes[index].type == COORDINATOR_FUNCTION
    return spec.holds_place(index, record) and not is_function


def _returns(task: Task) -> Iterator[ReturnKey]:
    """Yield the effects that give back the places of claims that are over. A client that has ended
    a node or task leaves that to the coordinators, and a coordinator may have crashed before it.
    """
    if task.key is not None and task.key.is_over:
        yield ReturnKey(WHOLE_TASK, task.key.in_state("queued"))
    for index, record in task.records.items():
        for kind in CLAIM_KINDS:
            claim = record.claim(kind)
            if claim is not None and claim.is_over and claim.key:
                began = record.issued_at > claim.asked_at
                before = claim.in_state("held" if began else "queued")
                finished = task.marks[index] == Mark.FINISHED
                yield return_of(index, before, kind, record, finished=finished)


def return_of(
    index: int,
    claim: KeyClaim,
    kind: ClaimKind,
    record: NodeRecord,
    *,
    begun: bool = True,
    finished: bool,
) -> ReturnKey:
    """Return the effect at the end of a claim. The result for a cache key is stored if an attempt
    gave it, from all of its batches.
    """
    given = record.resolution is not None or record.skipped or record.cached
    stores = kind == "cache" and finished and not given
    return ReturnKey(index, claim, kind, begun, record.result if stores else None, stores)


def map_effects(task: Task, index: int, attempt: int) -> list[Effect]:
    """Return the effect that a map needs: for its items, or for the results of its children; for
    the undo of a map, the effect that tells which undos run next.
    """
    if is_undo(task.spec.plan, index):
        is_next = bool(task.ready) and task.ready[0][1] == index
        if not is_next or task.in_flight or task.deferred:
            return []
        return [ReadEnds(index, attempt, task.record(index).after)]
    state = task.maps.get(index)
    reads = index in task.spec.plan.map_sources and (state is None or state.may_grow)
    if reads and task.record(index).reason_code is None:
        return [ReadArtifacts(index, attempt)]
    if state is None:
        return [OpenMap(index, attempt)]
    return [] if state.open else [CollectMap(index, attempt)]
