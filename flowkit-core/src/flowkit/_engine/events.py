"""Events of tasks, and the effects of the changes that they cause, as values.

The reports of workers are events too; they are in :mod:`flowkit.messages`.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flowkit._engine.readiness import awaits_output
from flowkit._engine.segment_rules import has_segments
from flowkit._engine.stop_reasons import stop_cause
from flowkit._engine.vars import VarsOp
from flowkit.graph._expanded_plan import is_undo, runs_child_task
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.messages import ChildEnded, WorkerReport
from flowkit.task import (
    CLAIM_KINDS,
    WHOLE_TASK,
    ClaimKind,
    KeyClaim,
    MapStream,
    Mark,
    NodeRecord,
    ParentNode,
    Resolution,
    Task,
    TaskSpec,
    TaskStatus,
)

# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    """The task was created."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A user cancelled the task. ``force`` also ends its undos and the nodes of ``finally``, which
    no other request ends.
    """

    reason: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """A user paused the task: no node starts, and running nodes continue."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """A user ended a pause."""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """A user retried an ended task: from these nodes and all below them, or from the nodes that did
    not succeed.

    The task must have the records of all nodes in memory.
    """

    nodes: tuple[int, ...] | None = None
    fill: bool = False
    """Retry dead letters: the chosen nodes keep their stored batches and run for the missing ones.
    Only such a retry runs a finished task again.
    """


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A user sent a signal to the task."""

    name: str
    payload: Any = None
    signal_id: str | None = None
    """Id of the signal. The first of several signals with one id counts."""
    nodes: tuple[int, ...] | None = None
    """Nodes that may take it; None for all that wait for its name."""


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """A human decided about an approval."""

    index: int
    attempt: int
    choice: str
    by: str
    values: Any = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class NodeResolved:
    """An operator chose the outcome of a node that has not ended."""

    index: int
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class RunNowRequested:
    """A user ended the pause of a node."""

    index: int
    until: float
    """End of that pause. A later pause of the node goes on."""


@dataclass(frozen=True, slots=True)
class ConditionEvaluated:
    """The condition of a node is true or false, or could not be evaluated (``error``)."""

    index: int
    value: bool = False
    error: str | None = None
    since: float | None = None
    """Time at which the evaluation was delayed. The result of an evaluation in an earlier run of
    the node is ignored.
    """


@dataclass(frozen=True, slots=True)
class ConditionDelayed:
    """The condition of a node takes longer than a commit may wait. It is evaluated in a thread, and
    the result is reported later.
    """

    index: int


@dataclass(frozen=True, slots=True)
class OutputEvaluated:
    """The output of the task has a value, or could not be evaluated (``error``, which starts with a
    reason code).
    """

    value: Any = None
    error: str | None = None
    since: float | None = None
    """Time at which the evaluation was delayed. The result of an earlier evaluation is ignored."""


@dataclass(frozen=True, slots=True)
class OutputDelayed:
    """The output of the task takes longer than a commit may wait. It is evaluated in a thread, and
    the result is reported later.
    """


@dataclass(frozen=True, slots=True)
class TaskEnding:
    """Request of a coordinator function to end its task now."""

    status: TaskStatus
    """``finished``, ``failed`` or ``cancelled``."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MapOpened:
    """The items of a map are known. Its children are added to the task."""

    index: int
    attempt: int
    size: int = 0
    items_a_part: int = 1
    tag: str = ""
    parts: Sequence[bytes] = ()
    """The items as JSON lists of ``items_a_part`` items."""


@dataclass(frozen=True, slots=True)
class MapGrew:
    """A map read artifacts of its parent. Each one makes a child."""

    index: int
    attempt: int
    after: int
    """Position up to which they had been read before."""
    stream: MapStream
    items: Sequence[bytes] = ()
    """The new items, each as a JSON list with one item."""
    more: bool = False
    """There may be more artifacts to read."""


@dataclass(frozen=True, slots=True)
class MapFailed:
    """The items of a map could not be evaluated, or its result could not be collected."""

    index: int
    attempt: int
    reason_code: str
    error: str


@dataclass(frozen=True, slots=True)
class ChildrenDue:
    """The children of a map are part of the task and may start."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class MapCollected:
    """The results of the children of a map are collected, in the order of the items."""

    index: int
    attempt: int
    result: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ShardsCollected:
    """The sums over the batches of the shards of a node are known."""

    index: int
    attempt: int
    metrics: dict[str, float | int]
    batches: int
    skipped: int


@dataclass(frozen=True, slots=True)
class EndsRead:
    """The ends of some children of a map are known, whose undos run next."""

    index: int
    """The undo of the map."""
    attempt: int
    before: int
    """Number of the change in the history above which they had been read before."""
    after: int
    """Number of the change above which they are read now."""
    children: Sequence[tuple[int, int]] = ()
    """Number of each child in the map, and of the change with which it finished."""
    cached: Collection[int] = ()
    """Numbers of those children that have taken a cached result, which are not undone."""


@dataclass(frozen=True, slots=True)
class FunctionReturned:
    """A coordinator function returned. Its operations on the vars are applied with this event."""

    index: int
    attempt: int
    token: str
    at: float
    result: Any = None
    ops: Sequence[VarsOp] = ()
    ending: TaskEnding | None = None


@dataclass(frozen=True, slots=True)
class FunctionFailed:
    """A coordinator function failed."""

    index: int
    attempt: int
    token: str
    at: float
    reason_code: str
    permanent: bool
    error: str


@dataclass(frozen=True, slots=True)
class ArgumentsEvaluated:
    """The arguments of a control node have these values, or cannot be evaluated (``error``)."""

    index: int
    attempt: int
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ChildrenCreated:
    """The child tasks of these nodes are stored."""

    nodes: Sequence[ParentNode]


@dataclass(frozen=True, slots=True)
class NextRound:
    """The condition of a loop asks for a further round."""

    max_iterations: int
    """Most rounds of the loop."""
    delay_sec: float
    """Pause before the round."""


@dataclass(frozen=True, slots=True)
class ChildFinished:
    """The child task of a node finished."""

    index: int
    attempt: int
    result: Any = None
    iteration: int | None = None
    """Round of a loop."""
    following: NextRound | None = None
    """None if the node has finished as well."""


@dataclass(frozen=True, slots=True)
class RoundChecked:
    """The condition of a loop was evaluated before a round."""

    index: int
    attempt: int
    iteration: int
    goes_on: bool


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """The child task of a node failed, was cancelled, or cannot be created."""

    index: int
    attempt: int
    reason_code: str
    error: str
    permanent: bool = False
    iteration: int | None = None
    """Round of a loop."""
    missing: bool = False
    """The child task was refused, and is not stored."""


@dataclass(frozen=True, slots=True)
class FollowParent:
    """A child task follows the state of the node that runs it."""

    attempt: int
    """Current attempt of the node. An ended task runs again for a new attempt."""
    pauses: int
    """Number of pauses and resumes of the parent."""
    paused: bool
    stop: str | None = None
    """Reason why the task is to stop."""
    force: bool = False
    """The stop also ends undos and ``finally``."""


@dataclass(frozen=True, slots=True)
class KeyNamed:
    """The expressions of a concurrency key or a rate, or the key of a cache, have been
    evaluated.
    """

    index: int
    """The node, or ``WHOLE_TASK``."""
    number: int
    """Number of the claim."""
    key: str = ""
    error: str | None = None
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class KeyGranted:
    """A node or task has got a place of its concurrency key, or a node one of its rate. Or a node
    is the one that computes the result for its cache key.
    """

    index: int
    """The node, or ``WHOLE_TASK``."""
    number: int
    """Number of its claim."""
    shared: bool = False
    """An ancestor holds the place. A node whose ancestor computes a result for the same cache key
    has a result of its own, which is not stored.
    """
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class KeyQueued:
    """A node or task is in the queue of its concurrency key or its rate, or waits for the result
    for its cache key, which another node computes.
    """

    index: int
    number: int
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class KeysAnswered:
    """Several claims of nodes of the task are answered. One event for all of them costs less than
    one for each.
    """

    answers: Sequence[KeyGranted | KeyQueued]


@dataclass(frozen=True, slots=True)
class KeyBusy:
    """The concurrency key of a node or task that does not wait for it is held by others."""

    index: int
    number: int
    error: str
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class ResultCached:
    """A result is stored for the cache key of a node."""

    kind: ClassVar[ClaimKind] = "cache"
    index: int
    number: int
    """Number of the claim."""
    key: str
    asked_at: float
    result: Any


@dataclass(frozen=True, slots=True)
class CommandWithdrawn:
    """The command of an attempt was withdrawn before a worker started it. No worker will."""

    index: int
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class Woke:
    """A timer of the task is due."""

    silent: dict[str, float] = field(default_factory=dict)
    """Seconds without a heartbeat, for each worker that may be lost; infinite if it has ended."""
    restarted: frozenset[str] = frozenset()
    """Ids of workers whose process is a new one. It is asked about the runs of the old one."""
    due_only: bool = False
    """Examine only the nodes that are due. After the loss of a worker, all nodes are examined."""
    heard_since: float = -math.inf
    """Time since which no report was delayed by an outage."""
    heard_until: float = math.inf
    """Time until which the reports were read. The event may be applied later, after an outage."""


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command that was sent, and its place on the bus if that is known."""

    index: int
    attempt: int
    handovers: int
    """The number of times that the attempt was handed back before the command was issued."""
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CommandsSent:
    """These commands are on the bus."""

    commands: Sequence[SentCommand]


@dataclass(frozen=True, slots=True)
class CommandWaiting:
    """The bus confirmed that this command still waits for a worker."""

    command: SentCommand


@dataclass(frozen=True, slots=True)
class CommandsLost:
    """These commands will not reach a worker, or were never sent.

    A command that has another place by now was sent again in the meantime and is ignored.
    """

    commands: Sequence[SentCommand]


ClientEvent = (
    TaskSubmitted
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | RetryRequested
    | SignalReceived
    | DecisionMade
    | RunNowRequested
    | NodeResolved
)


@dataclass(frozen=True, slots=True)
class ChangesPublished:
    """The changes of the task up to this number are in the topic of changes. With 0, none of them
    is, and a coordinator has begun to publish them.
    """

    seq: int


DeferrableEvent = CommandsSent | CommandWaiting | ChildrenCreated | ChangesPublished
"""Events that may be stored later, with the next commit of the task. If the process ends before, a
command is checked or sent, or a change is published, once more than needed.
"""
KeyEvent = KeyNamed | KeyGranted | KeyQueued | KeyBusy | ResultCached
MapEvent = MapOpened | MapGrew | MapFailed | ChildrenDue | MapCollected | ShardsCollected | EndsRead
Event = (
    ClientEvent
    | DeferrableEvent
    | ConditionEvaluated
    | ConditionDelayed
    | OutputEvaluated
    | OutputDelayed
    | ArgumentsEvaluated
    | MapEvent
    | FunctionReturned
    | FunctionFailed
    | ChildFinished
    | ChildFailed
    | RoundChecked
    | ChildEnded
    | FollowParent
    | KeyEvent
    | KeysAnswered
    | CommandWithdrawn
    | Woke
    | CommandsLost
    | WorkerReport
)


# ---------------------------------------------------------------- effects


@dataclass(slots=True)
class SendCommand:
    """Send the command of a node's current attempt, unless it has been handed back since."""

    index: int
    attempt: int
    handovers: int


@dataclass(slots=True)
class CallFunction:
    """Call the coordinator function of a node."""

    index: int
    attempt: int


@dataclass(slots=True)
class EvaluateCondition:
    """Evaluate the condition of a node: before the commit, or after it if it was delayed."""

    index: int


@dataclass(slots=True)
class EvaluateOutput:
    """Evaluate the output of a task that would finish: before the commit, or after it if it was
    delayed.
    """


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Evaluate the expressions in the arguments of a control node, which has begun."""

    index: int
    attempt: int


@dataclass(slots=True)
class OpenMap:
    """Evaluate the items of a map and start its children: before the commit, or after it if that
    takes long.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class ReadArtifacts:
    """Read new artifacts of the parent of a map, which make children: before the commit, or after
    it (``later``) if there are many. Repeating this is harmless.
    """

    index: int
    attempt: int
    later: bool = False


@dataclass(slots=True)
class CollectMap:
    """Collect the results of the children of a map: before the commit, or after it if there are
    many.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class ReadEnds:
    """Read from the history which children of a map finished last, down from the change with the
    number ``before``. Their undos run next. Repeating this is harmless.
    """

    index: int
    """The undo of the map."""
    attempt: int
    before: int


@dataclass(slots=True)
class RunChild:
    """Bring the child task of a node in line with the node: create it, run it again, stop it, pause
    it, or report its end. Repeating this is harmless.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class AskKey:
    """Ask for a place of the concurrency key of a node or task, for one of the rate of a node, or
    for the result for its cache key. Repeating this is harmless.
    """

    index: int
    number: int
    """Number of the claim."""
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class NameKey:
    """Evaluate the expressions of the concurrency key of a node or task, or of the rate or the
    cache of a node.
    """

    index: int
    number: int
    """Number of the claim."""
    kind: ClaimKind = "key"


@dataclass(slots=True)
class ReturnKey:
    """Give back the place of a claim that is over, or take it out of the queue. Repeating
    this is harmless.
    """

    index: int
    claim: KeyClaim
    """The claim before its end."""
    kind: ClaimKind = "key"
    begun: bool = True
    """Whether an attempt may have begun with the place."""
    result: Any = None
    stores: bool = False
    """The result is to be stored under the key of the cache."""


@dataclass(slots=True)
class WithdrawCommand:
    """Withdraw the command of an attempt, and report whether a worker has started it. Repeating
    this is harmless.
    """

    index: int
    attempt: int
    token: str


@dataclass(slots=True)
class TellParent:
    """Notify the parent's coordinator that the child task has ended."""


@dataclass(slots=True)
class SendCancel:
    """Ask the worker of this attempt to stop."""

    index: int
    attempt: int
    token: str
    reason: str


@dataclass(slots=True)
class EndSegments:
    """Ask the workers to begin no further nodes of the task without commands."""


@dataclass(slots=True)
class CheckCommand:
    """Check whether the command of a node's current attempt can still reach a worker."""

    index: int
    attempt: int


@dataclass(slots=True)
class AskWorker:
    """Ask the worker that started this attempt for its state."""

    index: int
    attempt: int
    token: str
    worker_id: str


@dataclass(slots=True)
class TellReaders:
    """Notify the readers of a node's artifacts that the node has ended."""

    index: int
    generation: int


@dataclass(slots=True)
class PublishChanges:
    """Publish the changes of the task that are not in the topic of changes, up to this number."""

    upto: int


@dataclass(slots=True)
class KeepLetter:
    """Store a dead letter of a node that failed in its last attempt."""

    index: int


@dataclass(slots=True)
class DropLetter:
    """Drop the dead letter of an attempt in an earlier run of the node."""

    index: int
    attempt: int


Letter = KeepLetter | DropLetter
"""Changes of dead letters. Repeating one is harmless."""

Effect = (
    SendCommand
    | CallFunction
    | EvaluateCondition
    | EvaluateOutput
    | EvaluateArguments
    | OpenMap
    | ReadArtifacts
    | CollectMap
    | ReadEnds
    | RunChild
    | AskKey
    | NameKey
    | ReturnKey
    | WithdrawCommand
    | TellParent
    | SendCancel
    | EndSegments
    | CheckCommand
    | AskWorker
    | TellReaders
    | PublishChanges
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
    """Return whether a client may have paused a task or resolved one of its nodes while a worker
    ran a segment.
    """
    is_changed = task.paused or any(record.resolution for record in task.records.values())
    return is_changed and has_segments(task)


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
    """Return the effects that stop an attempt. If it has a place of a key or a rate, and no worker
    is known to have started it, its command is withdrawn.
    """
    token = spec.current_token(index, record)
    effects: list[Effect] = [SendCancel(index, record.attempt, token, reason)]
    if record.worker_id is None and ends_by_proof(spec, index, record):
        effects.append(WithdrawCommand(index, record.attempt, token))
    return effects


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
