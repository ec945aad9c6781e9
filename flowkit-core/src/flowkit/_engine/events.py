"""Events of tasks, as values.

The reports of workers are events too; they are in :mod:`flowkit.messages`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flowkit._engine.vars import VarsOp
from flowkit.messages import ChildEnded, WorkerReport
from flowkit.task import (
    ClaimKind,
    MapStream,
    ParentNode,
    Resolution,
    TaskStatus,
)


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
class ResultWanted:
    """A node waits for the result that another one is to compute, and its task, or a node or task
    above it, has a place for which that one may wait. The turn of that one is over.
    """

    kind: ClassVar[ClaimKind] = "cache"
    index: int
    """The node that is to compute the result."""
    number: int
    """Number of its claim."""


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
    carried: int = 0
    """Number of other nodes that the command carries."""


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
KeyEvent = KeyNamed | KeyGranted | KeyQueued | KeyBusy | ResultCached | ResultWanted
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
