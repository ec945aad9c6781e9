"""Tasks: the views for users, and the state that the engine works on."""

import base64
import hmac
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from hashlib import blake2b
from itertools import chain
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import from_json, to_json

from flowkit._json.limits import (
    MAX_NESTED_VALUE_LEVELS,
    MAX_UID_CHARS,
    MAX_WORKER_ID_CHARS,
    Count,
    Moment,
)
from flowkit._json.values import json_copy
from flowkit._text.redaction import encodable
from flowkit.graph import Cache, Concurrency, FlowRef, Plan, RateLimit, TaskConcurrency
from flowkit.protocols import utc
from flowkit.tracing import TraceContext


class TaskStatus(StrEnum):
    """Status of a task. ``terminal`` is true once it has ended."""

    QUEUED = "queued"
    RUNNING = "running"
    DEFERRED = "deferred"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the task has ended."""
        return self in _TERMINAL_TASK


class NodeStatus(StrEnum):
    """Status of a node. ``terminal`` is true once it has ended."""

    QUEUED = "queued"
    RUNNING = "running"
    DEFERRED = "deferred"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        """Whether the node has ended."""
        return self in _TERMINAL_NODE


_TERMINAL_TASK = frozenset({TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED})
_TERMINAL_NODE = frozenset(
    {NodeStatus.FINISHED, NodeStatus.FAILED, NodeStatus.CANCELLED, NodeStatus.SKIPPED}
)


# ---------------------------------------------------------------- views


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


WaitKind = Literal["timer", "signal", "approval"]
"""Kind of event for which a node of a control type waits."""
ResolvedAs = Literal["finished", "failed", "skipped"]
"""Outcome that an operator can choose for a node."""
NodesShown = Literal["all", "graph", "none"]
"""Nodes that a view of a task has: the nodes of its graph and the first children of each map, only
the nodes of its graph, or none.
"""
WaitingFor = Literal["timer", "signal", "approval", "cache", "key", "rate", "worker"]
"""Reason why a node waits, by which tasks are listed."""
ClaimKind = Literal["cache", "key", "rate"]
"""Kinds of places that a node claims before an attempt, in this order."""
CLAIM_KINDS: tuple[ClaimKind, ...] = get_args(ClaimKind)


class NodeView(_View):
    """A node at one moment."""

    node_id: str
    type: str
    status: NodeStatus
    phase: str = "main"
    """``main``, ``undo`` or ``finally``. The undo of a node has the id ``<node>~undo``."""
    labels: dict[str, str] = {}
    optional: bool = False
    """Whether the task goes on without the node's data if it fails."""
    attempt: int = 0
    worker_id: str | None = None
    reason_code: str | None = None
    error: str | None = None
    """Error of a failed node. For a stopped node, the cause: the reason of the cancellation, the
    failure of another node, …
    """
    result: JsonValue = None
    metrics: dict[str, float | int] = {}
    skipped_batches: int = 0
    """Batches without which the node finished, after their last attempts failed. They are kept as
    dead letters.
    """
    progress: JsonValue = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_retry_at: datetime | None = None
    child_task_id: str | None = None
    """Task that a node of type ``subflow`` runs, or the task of the current or last round of a node
    of type ``loop``. It is stored when the node has started, a moment later. None if it was
    refused.
    """
    rounds: dict[int, str] = {}
    """Tasks of the last 20 rounds of a node of type ``loop``, by the number of the round from 0."""
    waiting: WaitKind | ClaimKind | None = None
    """Kind of event for which a deferred node of a control type waits; ``key`` for a node that
    waits for its concurrency key, ``rate`` for one that waits for its rate, and ``cache`` for one
    that waits for a result that another node with the same cache key computes. None in a pause
    before a retry, whose end is ``next_retry_at``.
    """
    waiting_until: datetime | None = None
    """Time at which this wait ends in any case."""
    cached: bool = False
    """Whether the node has not run, because a result was stored under its cache key."""
    resolved_by: str | None = None
    """Name of the operator who has chosen the outcome of the node."""
    children: dict[NodeStatus, int] = {}
    """Number of all children of a map in each status, or of all shards of a node. It is empty until
    the items are known or the shards begin, and for other nodes.
    """


class TaskView(_View):
    """A task at one moment."""

    id: str
    pipeline: str | None = None
    flow: str | None = None
    """Name of the registered flow that the task runs."""
    version: int | None = None
    """Version of that flow."""
    parent: str | None = None
    """Id of the task whose node runs this task."""
    parent_node: str | None = None
    """Node of the parent that runs this task."""
    rerun_of: str | None = None
    """Id of the task whose graph and params this task has, if it was submitted by ``rerun``."""
    schedule: str | None = None
    """Id of the schedule that made this task."""
    waiting: Literal["key"] | None = None
    """``key`` while the task waits for the concurrency key of its graph."""
    waits: tuple[str, ...] = ()
    """Things that the task and its nodes wait for, at most three, such as ``signal 'paid'``. Views
    in hooks have none.
    """
    schedule_at: datetime | None = None
    """Nominal time of the schedule for which it made this task."""
    trigger: str | None = None
    """Id of the trigger that made this task."""
    status: TaskStatus
    params: dict[str, JsonValue] = {}
    vars: dict[str, JsonValue] = {}
    labels: dict[str, str] = {}
    result: Any = None
    """Value of the graph's ``output`` once the task has finished. Without an ``output``, the
    results of the finished nodes without children, by node id; None until the task has ended, and a
    failed or cancelled task has results as well.
    """
    error: str | None = None
    """Error of a failed task, or reason of a cancellation."""
    created_at: datetime
    started_at: datetime | None = None
    """Start of the first node, or of the first one since the last retry."""
    finished_at: datetime | None = None
    seq: int = 0
    """``seq`` of the last event of the task."""
    nodes: dict[str, NodeView] = {}


class FlowInfo(_View):
    """Latest version of a registered flow, without its graph."""

    name: str
    version: int = 0
    description: str = ""
    created_at: datetime = datetime.fromtimestamp(0, UTC)
    fault: str | None = None
    """Reason why the stored flow cannot be read. The other fields then have their defaults."""


class FlowVersion(_View):
    """Version of a registered flow. ``version`` counts 1, 2, 3, … per flow."""

    name: str
    version: int
    graph: dict[str, Any]
    """The graph as it was written."""
    description: str = ""
    created_at: datetime


class TaskEvent(_View):
    """One change of a task. ``seq`` counts 1, 2, 3, … per task; ``kind`` is ``status``,
    ``progress``, ``batch``, ``signal``, ``resolution`` (an operator has chosen the outcome of a
    node) or ``children``: a map has got children.
    """

    seq: int
    at: datetime
    """Time of the change. Processes use their own clocks, so it may be before that of an event with
    a lower ``seq``.
    """
    task_id: str
    node_id: str | None = None
    kind: str
    status: str | None = None
    data: JsonValue = None


class Artifact(_View):
    """Output of a node: the artifact of a batch (``partial``), or the complete one of the node."""

    task_id: str
    node_id: str
    uid: str
    partial: bool
    meta: dict[str, JsonValue]
    created_at: datetime


class LogLine(_View):
    """Line that a handler logged, or the error of a failed attempt or batch."""

    at: datetime
    task_id: str
    node_id: str
    attempt: int
    batch_uid: str | None = None
    """Batch that the handler processed."""
    worker_id: str
    level: str
    """``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
    logger: str
    """Name of the logger; ``flowkit.run`` is that of ``ctx.log``."""
    text: str
    fields: dict[str, JsonValue] = {}
    """The ``extra`` that was logged with the line."""
    traceback: str | None = None
    number: int
    """Number of the line among those of its attempt on this worker: 1, 2, 3, …"""
    dropped: int = 0
    """Number of lines of this attempt directly before this one that are not kept."""
    trace_id: str | None = None
    span_id: str | None = None
    """The trace and the span in which the line was logged, where there is one."""


class Approval(_View):
    """Node that waits for the decision of a human."""

    task_id: str
    node_id: str
    prompt: str
    choices: list[str]
    form: dict[str, JsonValue] | None = None
    """JSON Schema of the values that come with a decision."""
    assignees: list[str] | None = None
    """Names of those who may decide; None if anyone may."""
    since: datetime
    until: datetime | None = None
    """Time at which the node stops to wait."""


class WorkerView(_View):
    """A worker that has a session: it runs, or was killed a short time ago."""

    id: str
    roles: list[str]
    running: int
    """Nodes that it ran at its last heartbeat."""
    waiting: int
    """Nodes beside these that held no slot then: they waited for batches of other nodes, for their
    readers, or to get a slot back.
    """
    slots: int
    """Nodes that it runs at most at a time: its ``max_concurrency``."""
    last_heartbeat: datetime
    silent: bool
    """Whether heartbeats are missing: it was killed, has no store, or a handler blocks it."""
    version: str
    host: str
    pid: int
    started_at: datetime


class CoordinatorView(_View):
    """A coordinator that has a session: it runs, or was killed a short time ago."""

    id: str
    last_heartbeat: datetime
    silent: bool
    """Whether heartbeats are missing: it was killed, has no store, or is blocked."""
    version: str
    host: str
    pid: int
    started_at: datetime


class QueueView(_View):
    """Nodes that wait for a worker of one role."""

    role: str
    waiting: int
    """Number of these nodes."""
    oldest_at: datetime
    """Time since which the first of them waits."""
    limited: bool = False
    """Whether more tasks have such nodes than are counted, so that ``waiting`` may be too low."""


NodeAction = Literal["run_now", "retry", "resolve"]
"""Action on a node: a verb of the client, ``retry`` with the node in ``from_nodes``."""
TaskAction = Literal["cancel", "force_cancel", "pause", "resume", "retry"]
"""Action on a task: a verb of the client, ``force_cancel`` for ``cancel`` with ``force``."""

LetterKind = Literal["batch", "node", "message", "task", "trigger", "webhook"]
LETTER_KINDS: tuple[LetterKind, ...] = get_args(LetterKind)
LETTER_KINDS_TEXT = f"{', '.join(LETTER_KINDS[:-1])} or {LETTER_KINDS[-1]}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Work that was given up, with the reason and the data that a retry needs.

    A ``batch`` or ``node`` that failed and has no retries left, a ``message`` that could not be
    used, a quarantined ``task``, the event of a ``trigger`` for which no task could be made, or a
    change of a task that a ``webhook`` could not deliver.
    """

    letter_id: str
    at: float
    kind: LetterKind
    reason_code: str
    error: str
    task_id: str | None = None
    node_id: str | None = None
    uid: str | None = None
    data: bytes = b""
    """Payload of a batch, input of a node, event of a trigger or change of a task as JSON, or the
    value of a message.
    """
    size: int = 0
    """Length of ``data`` before it was cut."""
    generation: int = 0
    """Generation of the batch's stream."""
    attempt: int = 0
    """Attempt of the node that failed, or in which the batch failed."""
    topic: str | None = None
    """Topic of the message or the change. The next three fields are its key and place."""
    key: str = ""
    partition: int | None = None
    position: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    trigger: str | None = None
    """Id of the trigger; ``uid`` is then its event."""
    webhook: str | None = None
    """Name of the webhook."""
    fault: str | None = None
    """Reason why the stored letter cannot be decoded. The other fields are then those that its id
    has.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the letter as a JSON object, with ``at`` as a text in ISO 8601.

        ``at`` is None if the letter has a ``fault``. ``data`` is its JSON. Data that JSON writers
        may refuse is base64 in ``data_base64``, without ``data``: texts that are not JSON, NaN,
        infinities, lone surrogates, very large integers, and values that are nested too deeply.
        Texts of foreign messages that are not valid Unicode are escaped.
        """
        shown: dict[str, Any] = {
            name: encodable(value) if isinstance(value, str) else value
            for name in self.__slots__
            if name != "data"
            for value in (getattr(self, name),)
        }
        shown["at"] = None if self.fault is not None else utc(self.at).isoformat()
        shown["headers"] = {
            encodable(name): value.decode("utf-8", "backslashreplace")
            for name, value in self.headers.items()
        }
        try:
            return shown | {"data": _json(self.data) if self.data else None}
        except ValueError:
            return shown | {"data_base64": base64.b64encode(self.data).decode()}


def _json(data: bytes) -> Any:
    """Return the value of JSON that can be written again.

    Raises:
        ValueError: it is no JSON, or JSON writers may refuse it.
    """
    return json_copy(from_json(data), "the data", max_levels=MAX_NESTED_VALUE_LEVELS)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Page of a list. Pass ``next`` as ``after`` to get the following page; None at the end."""

    items: list[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """Progress of a change of many tasks."""

    found: int = 0
    """Number of tasks that matched so far."""
    changed: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    """Reasons why tasks could not be changed, by id: a record is damaged, or a child task is
    retried with its parent.
    """


@dataclass(frozen=True, slots=True)
class NewTask:
    """Submission of a task, for plugins that implement ``flowkit_before_submit``."""

    task_id: str
    graph: dict[str, Any]
    params: Mapping[str, Any]
    pipeline: str | None
    labels: Mapping[str, str]
    priority: int
    flow: str | None = None
    """Name of the registered flow that has the graph."""
    version: int | None = None


# ---------------------------------------------------------------- state


class Mark:
    """States of a node in the engine, one byte each. They are finer than :class:`NodeStatus`: six
    marks are shown as ``queued``.
    """

    HELD = ord("h")
    """Its phase has not begun: it is an undo, or a node of ``finally``."""
    WAITING = ord(".")
    """Its fan-in is not met."""
    CHECKING = ord("?")
    """Its fan-in is met, and its condition is being evaluated."""
    READY = ord("r")
    """It may start, and waits until fewer nodes are in flight."""
    ASKING = ord("k")
    """It is about to start, and asks for its cached result, its concurrency key or its rate."""
    ISSUED = ord("q")
    """Its command was issued, and no worker has started it."""
    RUNNING = ord("u")
    MAPPING = ord("m")
    """A map has begun: its items are evaluated, its children run, or their results are
    collected. Or the shards of a node run.
    """
    DEFERRED = ord("d")
    CANCELLING = ord("c")
    CLOSING = ord("o")
    """A map was stopped, and some of its children have not ended."""
    FINISHED = ord("F")
    FAILED = ord("X")
    CANCELLED = ord("C")
    SKIPPED = ord("S")
    """Skipped without a failure: its condition was false, or no branch that leads to it was
    taken.
    """
    UPSTREAM_FAILED = ord("x")
    """Skipped because a node above it failed or was cancelled. Its children treat it as failed."""


WHOLE_TASK = -1
"""Index of a task as a whole, beside those of its nodes."""
UNUSED_PLACE = ord("-")
"""Mark of a place that is kept for a child of a map over artifacts, and is no node yet."""


class Phase(IntEnum):
    """Phases of a task, in order. Most tasks have only the first one."""

    MAIN = 0
    UNDO = 1
    """If the task fails or is cancelled, the undos of its finished nodes run, one at a time."""
    FINALLY = 2


STATUS_OF_MARK: dict[int, NodeStatus] = {
    Mark.HELD: NodeStatus.QUEUED,
    Mark.WAITING: NodeStatus.QUEUED,
    Mark.CHECKING: NodeStatus.QUEUED,
    Mark.READY: NodeStatus.QUEUED,
    Mark.ASKING: NodeStatus.QUEUED,
    Mark.ISSUED: NodeStatus.QUEUED,
    Mark.RUNNING: NodeStatus.RUNNING,
    Mark.MAPPING: NodeStatus.RUNNING,
    Mark.DEFERRED: NodeStatus.DEFERRED,
    Mark.CANCELLING: NodeStatus.CANCELLING,
    Mark.CLOSING: NodeStatus.CANCELLING,
    Mark.FINISHED: NodeStatus.FINISHED,
    Mark.FAILED: NodeStatus.FAILED,
    Mark.CANCELLED: NodeStatus.CANCELLED,
    Mark.SKIPPED: NodeStatus.SKIPPED,
    Mark.UPSTREAM_FAILED: NodeStatus.SKIPPED,
}
ENDED = frozenset({Mark.FINISHED, Mark.FAILED, Mark.CANCELLED, Mark.SKIPPED, Mark.UPSTREAM_FAILED})
UNBEGUN = frozenset({Mark.WAITING, Mark.CHECKING, Mark.READY})
ATTEMPTED = frozenset({Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING})
"""Marks of a node during an attempt."""
IN_FLIGHT = ATTEMPTED | {Mark.ASKING}
STOPPING = frozenset({Mark.CANCELLING, Mark.CLOSING})
STOPPED = frozenset({Mark.CANCELLED, Mark.SKIPPED})
"""Marks of a node that ended because it was stopped. A skipped node may never have begun."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait of a deferred control node."""

    kind: WaitKind
    until: Moment | None = None
    """Time at which the wait ends in any case."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Values of the expressions in its ``io`` that are needed until the wait ends."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal that a task has received."""

    number: Count
    """1 for the first signal of the task, and so on."""
    name: str
    payload: Any
    at: Moment
    nodes: tuple[Count, ...] | None = None
    """Nodes that may take it; None for all that wait for its name."""


@dataclass(frozen=True, slots=True)
class SignalBox:
    """Signals of a task."""

    received: Count = 0
    """Number of all signals."""
    kept: tuple[Signal, ...] = ()
    """Signals that no node has taken, the oldest first."""
    ids: tuple[str, ...] = ()
    """Ids of all signals that have one."""


class MapBlock(NamedTuple):
    """Places for the children of one run of a map: consecutive nodes after those of the graph."""

    owner: int
    """The map."""
    first: int
    """Index of the first child."""
    size: int
    items_a_part: int
    """Items in each archived part of the list."""
    tag: str
    """Hash of the items. It is part of the names of the archived parts."""

    @property
    def end(self) -> int:
        """Index after the last child."""
        return self.first + self.size


class MapStream(NamedTuple):
    """Progress of a map that reads the artifacts of a node."""

    generation: Count
    """Generation of the artifacts."""
    position: Count = 0
    """Position up to which they were read."""
    size: Count = 0
    """Number of children."""
    batches: Count = 0
    """Number of batches among these artifacts. One without an artifact of the handler makes no
    child.
    """
    ended: bool = False
    """The node has ended, and all its artifacts were read."""


@dataclass(slots=True)
class MapState:
    """State of the current run of a map. The fields from ``cursor`` on are not stored.

    A map that reads artifacts gets places for more children as it grows.
    """

    blocks: tuple[MapBlock, ...]
    stream: MapStream | None = None
    cursor: int = 0
    """No child before this one waits for its first start."""
    waiting: int = 0
    """Number of children that have not begun."""
    open: int = 0
    """Number of children that have not ended."""
    in_flight: int = 0
    asking: int = 0
    """Number of children in flight that only ask for their places."""
    again: list[int] = field(default_factory=list)
    """Heap of children that were begun before and may start again."""
    queued: bool = False
    """The map is in the queue of ready nodes, and its children start from there."""

    def copy(self) -> "MapState":
        """Return a copy."""
        return MapState(
            self.blocks,
            self.stream,
            self.cursor,
            self.waiting,
            self.open,
            self.in_flight,
            self.asking,
            list(self.again),
            self.queued,
        )

    @property
    def size(self) -> int:
        """Number of children."""
        return self.blocks[0].size if self.stream is None else self.stream.size

    @property
    def may_grow(self) -> bool:
        """Whether more children may be added."""
        return self.stream is not None and not self.stream.ended

    def places(self, number: int = 0) -> list[range]:
        """Return the places of the children from the one with this number on, in the order of their
        numbers.
        """
        found, end = [], self.size
        for block in self.blocks:
            if number < min(block.size, end):
                found.append(range(block.first + number, block.first + min(block.size, end)))
            number, end = max(number - block.size, 0), end - block.size
        return found

    def children(self) -> Iterator[int]:
        """Return the children, in the order of their numbers."""
        return chain.from_iterable(self.places())


@dataclass(slots=True)
class DueTimes:
    """Times at which the nodes of a task are to be examined next."""

    of_node: dict[int, float] = field(default_factory=dict)
    in_order: list[tuple[float, int]] = field(default_factory=list)
    """The times with their nodes, the earliest first."""


@dataclass(frozen=True, slots=True)
class ChildLink:
    """State of a node that runs a child task."""

    created: bool = False
    """The child task was stored. If it is missing, it was deleted."""
    overdue: bool = False
    """The attempt has exceeded its time limit, and ends when the child task has stopped."""
    iteration: Count | None = None
    """Round of a loop, from 0; None for a sub-flow."""
    due: bool = True
    """The child task is stored or is to be stored. False between rounds, until the condition of
    a round is known to be true, and while the task is paused before a round.
    """
    previous: Any = None
    """Result of the round before."""

    @property
    def shown_iteration(self) -> int | None:
        """The last round that has begun; None for a sub-flow, and before the first round."""
        if self.iteration is None or self.due:
            return self.iteration
        return self.iteration - 1 if self.iteration else None


ClaimState = Literal["unnamed", "asked", "queued", "held", "shared", "unused", "over", "busy"]


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """Claim to a place of a concurrency key, a rate or the key of a cache: of a node for its next
    or its current attempt, or of a task as a whole. The key of a cache has one place, for the node
    that computes the result.
    """

    key: str
    """Name of the key, or the text with expressions that gives the name. It is empty for the key of
    a cache that is not evaluated.
    """
    number: Annotated[Count, Field(ge=1)]
    """1 for the first claim of the node or task, and so on. It identifies the holder of a place."""
    state: ClaimState
    """``unnamed``: the expressions of the key are being evaluated. ``shared``: an ancestor has the
    place, and gives it back. ``unused``: the place was given back because the node or task could
    not start. Its next claim has the same rank. ``busy``: the task has ended because it does not
    wait.
    """
    asked_at: Moment
    """Time of the question, which is the rank in the queue."""

    @property
    def is_over(self) -> bool:
        """Whether the place is not needed any more."""
        return self.state in ("unused", "over", "busy")

    @property
    def is_asking(self) -> bool:
        """Whether it has no answer yet."""
        return self.state in ("unnamed", "asked")

    @property
    def is_open(self) -> bool:
        """Whether it has no answer that decides, and its key is known."""
        return self.state in ("asked", "queued")

    @property
    def is_held(self) -> bool:
        """Whether it has a place, or shares one."""
        return self.state in ("held", "shared")

    def in_state(self, state: ClaimState) -> "KeyClaim":
        """Return the claim in another state. This is faster than ``dataclasses.replace``."""
        return KeyClaim(self.key, self.number, state, self.asked_at)

    def fields(self) -> dict[str, Any]:
        """Return the values by name. This is faster than ``dataclasses.asdict``."""
        return {
            "key": self.key,
            "number": self.number,
            "state": self.state,
            "asked_at": self.asked_at,
        }

    def is_past(self, number: int) -> bool:
        """Return whether the claim with this number is over."""
        return self.number > number or (self.number == number and self.is_over)


Position = Annotated[int, Field(ge=0, le=2**63 - 1)]
WorkerId = Annotated[str, Field(min_length=1, max_length=MAX_WORKER_ID_CHARS)]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Outcome that an operator has chosen for a node. What runs is stopped first."""

    outcome: ResolvedAs
    by: str
    reason: str = ""
    result: Any = None
    """Result of a finished node, until it is in the record of the node."""

    def __str__(self) -> str:
        return f"{self.by} resolved it as {self.outcome}" + (self.reason and f": {self.reason}")


@dataclass(frozen=True, slots=True)
class KeptArtifact:
    """Artifact of a short run. It travels with the report of the end, and is stored in the record
    of the node.
    """

    uid: Annotated[str, Field(min_length=1, max_length=MAX_UID_CHARS)]
    partial: bool
    meta: dict[str, Any] | None
    metrics: dict[str, float | int]
    created_at: Moment


@dataclass(frozen=True, slots=True)
class SegmentIssue:
    """Issue of an attempt within a segment: the worker began it right after the node before, with
    no command of its own.
    """

    attempt: Count
    handovers: Count
    token: Annotated[str, Field(max_length=64)]


@dataclass(slots=True)
class NodeRecord:
    """Record of a node that has started or ended. The engine replaces the records of a task and
    never changes one.
    """

    attempt: Count = 0
    first_attempt: Annotated[Count, Field(ge=1)] = 1
    """First attempt of the current run of the node. Reports of earlier attempts are ignored."""
    generation: Count = 0
    handovers: Count = 0
    """Number of times that an attempt was handed back. It is part of the token, so that each issue
    of a command has its own.
    """
    sent: bool = False
    """The command is on the bus."""
    place: tuple[Count, Position] | None = None
    """Partition and position of the command on the bus, if known."""
    claimed: bool = False
    """A coordinator is about to send the command. Other coordinators leave that to it for a
    while.
    """
    confirmed_at: Moment | None = None
    """Time at which the bus confirmed that the command waits. The next confirmation is recorded
    when the next check is due.
    """
    has_batch: bool = False
    issued_at: Moment = 0.0
    first_issued_at: Moment = 0.0
    worker_id: WorkerId | None = None
    started_at: Moment | None = None
    heard_at: Moment | None = None
    finished_at: Moment | None = None
    next_retry_at: Moment | None = None
    cancel_by: Moment | None = None
    reason_code: str | None = None
    error: str | None = None
    result: Any = None
    metrics: dict[str, float | int] | None = None
    progress: Any = None
    retries: dict[str, Any] | None = None
    """Batches that are being retried: the fields of a :class:`~flowkit.messages.BatchRetries`."""
    held_up_by: tuple[str, Count] | None = None
    """Reader of its artifacts that the running node waits for, and the batches it is behind."""
    skipped: Count = 0
    """Failed batches without which the node finished."""
    batches: Count = 0
    """Batches that the node had stored when it finished."""
    in_batches: bool = False
    """The node works in batches. If it stored no artifact, it had nothing to do."""
    pulled: bool = False
    """The node finished after it read the artifacts of its parents until these had ended."""
    letter: Count = 0
    """Failed attempt that is kept as a dead letter; 0 if there is none."""
    required: bool = False
    """A retry runs the node to replace its result, or names it. ``on_satisfied: cancel`` of a child
    does not stop it.
    """
    wait: Wait | None = None
    """Wait of a control node that has begun to wait."""
    ended_task: bool = False
    """The node called ``task.end``, which ended the task."""
    after: Count = 0
    """For an undo: number of the change in the history with which its node finished; 0 if there is
    nothing to undo. For the undo of a map: number of the change above which the ends of the map's
    children are known.
    """
    child: ChildLink | None = None
    """State of the child task, if the node runs one and has begun."""
    resolution: Resolution | None = None
    key: KeyClaim | None = None
    """Last claim of the node to its concurrency key."""
    overdue: bool = False
    """The attempt has exceeded a limit, and fails when it is known to have ended."""
    rate: KeyClaim | None = None
    """Last claim of the node to its rate. It is over when the attempt is known to have begun."""
    cache: KeyClaim | None = None
    """Last claim of the node to compute the result for its cache key."""
    cached: bool = False
    """The node has taken a result that was stored under its cache key."""
    kept: tuple[KeptArtifact, ...] = ()
    """Artifacts of the finished node, if they are stored here. Then these are all that it has."""
    sharded_since: Moment | None = None
    """Time at which the shards of the node began, once all of them have ended. Then the sums over
    their batches are here, and the attempts are those of the end of the node.
    """
    segment: SegmentIssue | None = None
    """Issue of the attempt that began within a segment. Later attempts have commands."""
    promised: Count = 0
    """Number of nodes after this one that the worker of the attempt may begin without commands."""

    def copy(self) -> "NodeRecord":
        """Return a copy. This is faster than ``dataclasses.replace``."""
        return NodeRecord(
            self.attempt,
            self.first_attempt,
            self.generation,
            self.handovers,
            self.sent,
            self.place,
            self.claimed,
            self.confirmed_at,
            self.has_batch,
            self.issued_at,
            self.first_issued_at,
            self.worker_id,
            self.started_at,
            self.heard_at,
            self.finished_at,
            self.next_retry_at,
            self.cancel_by,
            self.reason_code,
            self.error,
            self.result,
            self.metrics,
            self.progress,
            self.retries,
            self.held_up_by,
            self.skipped,
            self.batches,
            self.in_batches,
            self.pulled,
            self.letter,
            self.required,
            self.wait,
            self.ended_task,
            self.after,
            self.child,
            self.resolution,
            self.key,
            self.overdue,
            self.rate,
            self.cache,
            self.cached,
            self.kept,
            self.sharded_since,
            self.segment,
            self.promised,
        )

    def claim(self, kind: ClaimKind) -> KeyClaim | None:
        """Return the last claim of this kind."""
        claim: KeyClaim | None = getattr(self, kind)
        return claim

    def set_claim(self, kind: ClaimKind, claim: KeyClaim) -> None:
        """Replace the last claim of this kind."""
        setattr(self, kind, claim)

    def kind_in(self, *states: str) -> ClaimKind | None:
        """Return the kind of the first claim that is in one of these states, or None."""
        for kind in CLAIM_KINDS:
            claim = self.claim(kind)
            if claim is not None and claim.state in states:
                return kind
        return None

    @property
    def in_segment(self) -> bool:
        """Whether the current attempt began within a segment."""
        issue = self.segment
        return issue is not None and (issue.attempt, issue.handovers) == (
            self.attempt,
            self.handovers,
        )

    @property
    def asks_for(self) -> ClaimKind | None:
        """Kind of the place for which the node asks or waits."""
        return self.kind_in("unnamed", "asked", "queued")

    @property
    def queued_for(self) -> ClaimKind | None:
        """Kind of the place for which the node waits in a queue."""
        return self.kind_in("queued")

    @property
    def holds_cache(self) -> bool:
        """Whether the attempt computes the result for its cache key."""
        return self.cache is not None and self.cache.is_held

    @property
    def holds_key(self) -> bool:
        """Whether the attempt has a place of its concurrency key, or shares one."""
        return self.key is not None and self.key.is_held

    @property
    def holds_rate(self) -> bool:
        """Whether the attempt has a place of its rate, and is not known to have begun."""
        return self.rate is not None and self.rate.is_held


@dataclass(frozen=True, slots=True)
class ScheduleOrigin:
    """Schedule that made a task."""

    schedule_id: str
    at: Moment
    """The nominal time."""
    awaited: bool = False
    """The schedule does something when the task has ended."""

    def is_same(self, other: object) -> bool:
        """Return whether this is the same nominal time of the same schedule."""
        return isinstance(other, ScheduleOrigin) and (self.schedule_id, self.at) == (
            other.schedule_id,
            other.at,
        )


@dataclass(frozen=True, slots=True)
class TriggerOrigin:
    """Trigger that made a task."""

    trigger_id: str
    cause: str
    """Event for which the task was made, such as ``task/ID/7``."""

    def task_id(self) -> str:
        """Return the id of the task: a hash, so that every coordinator computes the same."""
        cause = to_json([self.trigger_id, self.cause])
        return blake2b(cause, person=b"flowkit trigger", digest_size=16).hexdigest()

    def is_same(self, other: object) -> bool:
        """Return whether this is the same event of the same trigger."""
        return self == other


@dataclass(frozen=True, slots=True)
class ParentNode:
    """Node that runs a child task."""

    task_id: str
    node_id: str
    index: Count
    generation: Count
    attempt: Count
    """Attempt of the node in which the child task was created."""
    pauses: Count = 0
    """Number of pauses and resumes of the parent before that."""
    iteration: Count | None = None
    """Round of a loop, from 0; None for a sub-flow."""
    exclusive: bool = False
    """The node has a concurrency key, or its task runs in the place of one."""

    def child_id(self) -> str:
        """Return the id of the child task: a hash, so that every coordinator computes the same."""
        cause = to_json([one for one in self.cause if one is not None])
        return blake2b(cause, person=b"flowkit child", digest_size=16).hexdigest()

    def is_same_node(self, other: "ParentNode | None") -> bool:
        """Return whether this is the same node of the same task, generation and round."""
        return other is not None and self.cause == other.cause

    @property
    def cause(self) -> tuple[str | int | None, ...]:
        """Values from which the id of the child task follows."""
        return self.task_id, self.node_id, self.generation, self.iteration


def without(params: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return params without those of these names."""
    return {name: value for name, value in params.items() if name not in names}


@dataclass(frozen=True, slots=True)
class TaskFlow:
    """Version of a registered flow that a task runs."""

    name: str
    version: Annotated[Count, Field(ge=1)]
    latest: bool = False
    """The submission asked for the latest version."""

    @property
    def asked(self) -> tuple[str, int | None]:
        """The flow and the version that the submission asked for; None for the latest one."""
        return self.name, None if self.latest else self.version

    @property
    def shown_version(self) -> str:
        """The version that the submission asked for, in words."""
        return "the latest version" if self.latest else f"version {self.version}"


@dataclass(slots=True)
class TaskSpec:
    """Submission of a task. It never changes."""

    task_id: str
    plan: Plan
    created_at: float
    secret: bytes
    """Key of the tokens that prove an attempt was issued."""
    params: dict[str, Any] = field(default_factory=dict)
    defaulted: tuple[str, ...] = ()
    """Params that were not given and have the defaults of the graph's schema."""
    pipeline: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    idempotency_key: str | None = None
    deadline_sec: float | None = None
    """Time limit of each run of the task: the first one, and each one that a retry starts."""
    trace: TraceContext | None = None
    """Trace in which the task was submitted."""
    params_key: str | None = field(default=None, compare=False)
    """Hash of large params, empty for small ones; None if it is not known yet."""
    parent: ParentNode | None = None
    """Node that runs the task, if it is a child task."""
    flow: TaskFlow | None = None
    """Registered flow that has the graph."""
    rerun_of: str | None = None
    """Task whose submission was repeated."""
    schedule: ScheduleOrigin | None = None
    """Schedule that made the task, if one did."""
    trigger: TriggerOrigin | None = None
    """Trigger that made the task, if one did."""
    chain: int = 0
    """Number of ends of tasks, one after the other, by which triggers led to this task."""
    flow_versions: dict[str, int] = field(default_factory=dict)
    """Versions of the flows that this task and its child tasks run by name. They were fixed when
    the root task was submitted.
    """
    depth: int = 0
    """Number of tasks above: 0 for a root task."""

    def fixed(self, flow: FlowRef) -> FlowRef:
        """Return a flow that a node of the task runs, with its fixed version."""
        return FlowRef(flow.name, flow.version or self.flow_versions.get(flow.name))

    @property
    def given_params(self) -> dict[str, Any]:
        """The params as they were submitted."""
        return without(self.params, self.defaulted)

    def named(
        self, index: int, kind: ClaimKind
    ) -> Concurrency | TaskConcurrency | RateLimit | Cache | None:
        """Return the concurrency key, the rate or the cache of a node, or the key of the task as a
        whole.
        """
        if kind == "key":
            return self.key_of(index)
        node = self.plan.nodes[index]
        return node.rate_limit if kind == "rate" else node.cache

    def key_of(self, index: int) -> Concurrency | TaskConcurrency | None:
        """Return the concurrency key of a node, or of the task as a whole."""
        return self.plan.key if index == WHOLE_TASK else self.plan.nodes[index].key

    @property
    def in_place(self) -> bool:
        """Whether the nodes of the task run in a place that the task, or a node or task above it,
        has of a concurrency key or of the key of a cache.
        """
        return self.plan.key is not None or (self.parent is not None and self.parent.exclusive)

    def is_exclusive(self, index: int) -> bool:
        """Return whether a node has a concurrency key or a cache, or its task runs in the place of
        one. Such an attempt counts as ended only when that is known.
        """
        node = self.plan.nodes[index]
        return self.in_place or node.key is not None or node.cache is not None

    def holds_place(self, index: int, record: "NodeRecord") -> bool:
        """Return whether an attempt has a place that comes back only when more is known about it:
        of a key, that it has ended; of a rate, that it has begun.
        """
        return self.is_exclusive(index) or record.holds_rate

    def token(self, index: int, attempt: int, handovers: int) -> str:
        """Return the token of one issue of a node's command."""
        return blake2b(
            b"%d.%d.%d" % (index, attempt, handovers), key=self.secret, digest_size=12
        ).hexdigest()

    def token_after(self, before: str, index: int, attempt: int, handovers: int) -> str:
        """Return the token of an issue within a segment, right after the attempt of the node before
        with the token ``before``. It proves which result of that node the attempt reads.
        """
        return blake2b(
            b"%d.%d.%d.%b" % (index, attempt, handovers, before.encode()),
            key=self.secret,
            digest_size=12,
        ).hexdigest()

    def current_token(self, index: int, record: "NodeRecord") -> str:
        """Return the token of the current attempt of a node."""
        if record.segment is not None and record.in_segment:
            return record.segment.token
        return self.token(index, record.attempt, record.handovers)


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """Output of a task by the ``output`` of its graph."""

    since: Moment | None = None
    """Time at which its evaluation was delayed."""
    value: Any = None
    """Its value, once the task has finished."""
    ended: bool = False
    """The value was given by ``task.end``, also in a task that failed or was cancelled."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Progress of the publication of a task's changes."""

    seq: Annotated[int, Field(ge=-1)]
    """Number of the last change that is in the topic; -1 if no coordinator has decided yet whether
    changes are published.
    """
    since: Moment | None = None
    """Time of the first change after it; None if there is none, or if nothing is decided."""

    @property
    def is_decided(self) -> bool:
        return self.seq >= 0


@dataclass(slots=True)
class Task:
    """State of a task. The fields from ``taken`` on are not stored: :func:`flowkit._engine.derive`
    derives them from the others.
    """

    spec: TaskSpec
    marks: bytearray
    version: int = 0
    status: TaskStatus = TaskStatus.QUEUED
    outcome: TaskStatus | None = None
    """Status in which the task ends, once its running nodes have stopped, and its undos and the
    nodes of ``finally`` have run.
    """
    paused: bool = False
    seq: int = 0
    vars: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    """Reason of the cancellation."""
    output: TaskOutput | None = None
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    wake_at: float | None = None
    records: dict[int, NodeRecord] = field(default_factory=dict)
    signals: SignalBox = SignalBox()
    blocks: list[MapBlock] = field(default_factory=list)
    """Children of all runs of maps, in the order of their indexes."""
    maps: dict[int, MapState] = field(default_factory=dict)
    """Maps whose items are known, by index."""
    pauses: int = 0
    """Number of pauses and resumes, which child tasks follow in order."""
    forced: bool = False
    """A forced cancel came, which child tasks follow."""
    parent_attempt: int = 0
    """Attempt of the parent's node for which a child task runs."""
    parent_pauses: int = 0
    """Number of pauses and resumes of the parent that a child task has followed."""
    key: KeyClaim | None = None
    """Last claim of the task to the concurrency key of its graph."""
    failed_codes: dict[str, int] = field(default_factory=dict)
    """Numbers of failed nodes by reason code, of the first codes that failed."""
    publication: Publication | None = None
    """Progress of the publication of its changes; None if they are not published."""
    packed: bytearray = field(default_factory=bytearray)
    """Per node: 1 if its record is in a pack of the archive. Later nodes are in none."""

    taken: list[int] = field(default_factory=list)
    """Per node of the graph: edges from parents that were taken, with data."""
    empty: list[int] = field(default_factory=list)
    """Per node: edges without data, from parents that were skipped without a failure, or of
    branches that were not taken.
    """
    broken: list[int] = field(default_factory=list)
    """Per node: edges from parents that failed, were cancelled, or were skipped because a node
    above them failed.
    """
    phase: Phase = Phase.MAIN
    open: int = 0
    """Number of nodes that have not ended, of the phases that have begun."""
    in_flight: int = 0
    asking: int = 0
    """Number of nodes in flight that only ask for their places."""
    deferred: int = 0
    failures: int = 0
    """Number of failed nodes that no branch handles."""
    tag_counts: dict[str, int] = field(default_factory=dict)
    """Numbers of nodes that have not ended by the tags that they give the task."""
    ready: list[tuple[int, int]] = field(default_factory=list)
    """Heap of (-priority, index) of ready nodes. It may contain nodes that are not ready any
    more.
    """
    ready_later: list[tuple[int, int]] = field(default_factory=list)
    """Heap, like ``ready``, of nodes that may ask for their keys or rates when fewer nodes of the
    task wait for theirs.
    """
    due: DueTimes | None = None
    """None if the times are not known. Then the next wake-up examines all nodes."""
    recalled: dict[int, NodeRecord] = field(default_factory=dict)
    """Cache of records from the archive."""
    items: dict[str, list[Any]] = field(default_factory=dict)
    """Cache of items of maps, by the names of their archived parts."""
    end_orders: dict[int, "array[int]"] = field(default_factory=dict)
    """Cache of the order in which the children of maps ended, by the index of the first undo of a
    child.
    """

    @property
    def task_id(self) -> str:
        return self.spec.task_id

    @property
    def terminal(self) -> bool:
        return self.status in _TERMINAL_TASK

    def mark(self, index: int) -> int:
        """Return the mark of a node."""
        return self.marks[index]

    def is_packed(self, index: int) -> bool:
        """Return whether the record of a node is in a pack of the archive."""
        return index < len(self.packed) and self.packed[index] == 1

    def children_of(self, index: int) -> Iterator[int]:
        """Yield the children of a map, or the shards of a node."""
        state = self.maps.get(index)
        return iter(()) if state is None else state.children()

    def record(self, index: int) -> NodeRecord:
        """Return the record of a node, or an empty one if it has none in memory."""
        return self.records.get(index) or NodeRecord()

    def claim(self, index: int, kind: ClaimKind = "key") -> KeyClaim | None:
        """Return the last claim of a node, or of the whole task."""
        if index == WHOLE_TASK:
            return self.key if kind == "key" else None
        record = self.records.get(index)
        return None if record is None else record.claim(kind)

    def issued_token_matches(
        self, index: int, record: NodeRecord, attempt: int, token: str
    ) -> bool:
        """Return whether this token was issued for that attempt, in the current run of the node."""
        if attempt < record.first_attempt:
            return False
        issue = record.segment
        if (
            issue is not None
            and issue.attempt == attempt
            and hmac.compare_digest(issue.token, token)
        ):
            return True
        if attempt <= record.attempt and hmac.compare_digest(
            self.spec.token(index, attempt, record.handovers), token
        ):
            return True
        # The number of an attempt that was handed back is used again by the next one.
        issued = range(record.handovers) if attempt <= record.attempt + 1 else ()
        return any(
            hmac.compare_digest(self.spec.token(index, attempt, earlier), token)
            for earlier in issued
        )


LogEntry = tuple[Moment, Annotated[int, Field(ge=-1, le=2**31 - 1)], str, str | None, Any]
"""Change in the history: time, node index (-1 for the task), kind, status and data. Its number
follows from its position.
"""
