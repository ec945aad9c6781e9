"""Tasks: what users see of them, and the state the engine works on."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from flowkit._json.limits import MAX_WORKER_ID_CHARS, Count, Moment
from flowkit.graph import Plan
from flowkit.tracing import TraceContext


class TaskStatus(StrEnum):
    """Where a task is."""

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
        return self in _TERMINAL_TASK


class NodeStatus(StrEnum):
    """Where a node is."""

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
        return self in _TERMINAL_NODE


_TERMINAL_TASK = frozenset({TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED})
_TERMINAL_NODE = frozenset(
    {NodeStatus.FINISHED, NodeStatus.FAILED, NodeStatus.CANCELLED, NodeStatus.SKIPPED}
)


# ---------------------------------------------------------------- what users see


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class NodeView(_View):
    """A node as of one moment."""

    node_id: str
    type: str
    status: NodeStatus
    labels: dict[str, str] = {}
    attempt: int = 0
    worker_id: str | None = None
    reason_code: str | None = None
    error: str | None = None
    """What went wrong; of a node that was stopped, why: the reason the task was cancelled for, the
    failure of another node, …
    """
    result: JsonValue = None
    metrics: dict[str, float | int] = {}
    skipped_batches: int = 0
    """Batches that failed for good, without which the node finished: they are kept as dead
    letters.
    """
    progress: JsonValue = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_retry_at: datetime | None = None


class TaskView(_View):
    """A task as of one moment."""

    id: str
    pipeline: str | None = None
    status: TaskStatus
    params: dict[str, JsonValue] = {}
    vars: dict[str, JsonValue] = {}
    labels: dict[str, str] = {}
    result: dict[str, JsonValue] | None = None
    """Once the task has ended, also if it failed or was cancelled: the results of the nodes without
    children that finished, by node id.
    """
    error: str | None = None
    """Why it failed, or the reason it was cancelled for."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    nodes: dict[str, NodeView] = {}


class TaskEvent(_View):
    """One change of a task. ``seq`` counts 1, 2, 3, … per task; ``kind`` is ``status``,
    ``progress`` or ``batch``.
    """

    seq: int
    at: datetime
    task_id: str
    node_id: str | None = None
    kind: str
    status: str | None = None
    data: JsonValue = None


class Artifact(_View):
    """What a node produced: a batch's artifact (``partial``) or the node's complete one."""

    task_id: str
    node_id: str
    uid: str
    partial: bool
    meta: dict[str, JsonValue]
    created_at: datetime


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. ``next`` is what to ask ``after`` for what follows, None at the end."""

    items: list[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class NewTask:
    """A submission, as ``flowkit_before_submit`` sees it."""

    task_id: str
    graph: dict[str, Any]
    params: Mapping[str, Any]
    pipeline: str | None
    labels: Mapping[str, str]
    priority: int


# ---------------------------------------------------------------- what the engine works on


class Mark:
    """Where each node of a task is, in one byte. Finer than :class:`NodeStatus`: three marks are
    ``queued``.
    """

    WAITING = ord(".")
    """Its parents have not ended."""
    CHECKING = ord("?")
    """Its parents have; its ``when`` is being evaluated."""
    READY = ord("r")
    """It may start, and waits for room."""
    ISSUED = ord("q")
    """Its command was issued."""
    RUNNING = ord("u")
    DEFERRED = ord("d")
    CANCELLING = ord("c")
    FINISHED = ord("F")
    FAILED = ord("X")
    CANCELLED = ord("C")
    SKIPPED = ord("S")
    """Skipped without a failure: its condition was false, or no branch that leads to it was
    taken.
    """
    UPSTREAM_FAILED = ord("x")
    """Skipped because a node above it failed or was cancelled: its children count it as failed."""


STATUS_OF_MARK: dict[int, NodeStatus] = {
    Mark.WAITING: NodeStatus.QUEUED,
    Mark.CHECKING: NodeStatus.QUEUED,
    Mark.READY: NodeStatus.QUEUED,
    Mark.ISSUED: NodeStatus.QUEUED,
    Mark.RUNNING: NodeStatus.RUNNING,
    Mark.DEFERRED: NodeStatus.DEFERRED,
    Mark.CANCELLING: NodeStatus.CANCELLING,
    Mark.FINISHED: NodeStatus.FINISHED,
    Mark.FAILED: NodeStatus.FAILED,
    Mark.CANCELLED: NodeStatus.CANCELLED,
    Mark.SKIPPED: NodeStatus.SKIPPED,
    Mark.UPSTREAM_FAILED: NodeStatus.SKIPPED,
}
ENDED = frozenset({Mark.FINISHED, Mark.FAILED, Mark.CANCELLED, Mark.SKIPPED, Mark.UPSTREAM_FAILED})
UNBEGUN = frozenset({Mark.WAITING, Mark.CHECKING, Mark.READY})
IN_FLIGHT = frozenset({Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING})


Position = Annotated[int, Field(ge=0, le=2**63 - 1)]
WorkerId = Annotated[str, Field(min_length=1, max_length=MAX_WORKER_ID_CHARS)]


@dataclass(slots=True)
class NodeRecord:
    """What is recorded of a node that has begun. The engine replaces records, it never changes one
    that is in a task.
    """

    attempt: Count = 0
    first_attempt: Annotated[Count, Field(ge=1)] = 1
    """Attempts below this one belong to an earlier run of the node and count for nothing."""
    generation: Count = 0
    handovers: Count = 0
    """How often an attempt was handed back; part of the token, so that each issue of a command has
    its own.
    """
    sent: bool = False
    """The command was sent: the outbox entry is done."""
    place: tuple[Count, Position] | None = None
    """Where on the bus the command is, if that is known: its partition and position."""
    claimed: bool = False
    """A coordinator has taken it upon itself to send the command; whoever comes upon it leaves that
    to the coordinator for a while.
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
    """Batches that are being tried again, as a :class:`~flowkit.messages.BatchRetries` says it."""
    skipped: Count = 0
    """Batches that failed for good, without which the node finished."""
    batches: Count = 0
    """Batches that the node had stored when it finished."""
    in_batches: bool = False
    """The node works in batches: that it stored no artifact means that it had nothing to do."""
    pulled: bool = False
    """The node finished with batches from the artifacts of its parents, read until these had
    ended.
    """
    letter: Count = 0
    """The failed attempt that is kept as a dead letter; 0 if there is none."""
    required: bool = False
    """A retry runs it to replace its result, or names it: ``on_satisfied: cancel`` of a child does
    not stop it.
    """

    def copy(self) -> "NodeRecord":
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
            self.skipped,
            self.batches,
            self.in_batches,
            self.pulled,
            self.letter,
            self.required,
        )


@dataclass(slots=True)
class TaskSpec:
    """What was submitted: it never changes."""

    task_id: str
    plan: Plan
    created_at: float
    secret: bytes
    """Key of the tokens that prove an attempt was issued."""
    params: dict[str, Any] = field(default_factory=dict)
    pipeline: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    idempotency_key: str | None = None
    deadline_sec: float | None = None
    """How long each run of the task may take: the first, and each that ``retry`` begins."""
    trace: TraceContext | None = None
    """The trace in which it was submitted."""

    def token(self, index: int, attempt: int, handovers: int) -> str:
        """The token of one issue of a node's command."""
        return blake2b(
            b"%d.%d.%d" % (index, attempt, handovers), key=self.secret, digest_size=12
        ).hexdigest()


@dataclass(slots=True)
class Task:
    """A task's state. The stored fields come first; those below are derived from them by
    :func:`flowkit._engine.derive`.
    """

    spec: TaskSpec
    marks: bytearray
    version: int = 0
    status: TaskStatus = TaskStatus.QUEUED
    outcome: TaskStatus | None = None
    """How the task will end, once that is decided and what still runs is being stopped."""
    paused: bool = False
    seq: int = 0
    vars: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    """Why it was cancelled."""
    started_at: float | None = None
    finished_at: float | None = None
    deadline_at: float | None = None
    wake_at: float | None = None
    records: dict[int, NodeRecord] = field(default_factory=dict)

    taken: list[int] = field(default_factory=list)
    """Per node: parents that ended well, and whose edge was taken."""
    empty: list[int] = field(default_factory=list)
    """Per node: parents that ended without data: skipped without a failure, and edges of branches
    not taken.
    """
    broken: list[int] = field(default_factory=list)
    """Per node: parents that failed, were cancelled, or were skipped because a node above them
    failed.
    """
    open: int = 0
    """Nodes that have not ended."""
    in_flight: int = 0
    deferred: int = 0
    failures: int = 0
    """Failed nodes that no branch handles."""
    ready: list[tuple[int, int]] = field(default_factory=list)
    """Heap of (-priority, index) of nodes that wait for room; may hold entries that are ready no
    longer.
    """
    recalled: dict[int, NodeRecord] = field(default_factory=dict)
    """Some of the records that lie in the archive."""
    key_holders: dict[str, int] = field(default_factory=dict)
    key_waiters: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def task_id(self) -> str:
        return self.spec.task_id

    @property
    def terminal(self) -> bool:
        return self.status in _TERMINAL_TASK

    def mark(self, index: int) -> int:
        """Return the mark of a node."""
        return self.marks[index]

    def issued_token_matches(
        self, index: int, record: NodeRecord, attempt: int, token: str
    ) -> bool:
        """Whether this token was given out for that attempt of the node, in its present run."""
        if attempt < record.first_attempt:
            return False
        if attempt <= record.attempt and hmac.compare_digest(
            self.spec.token(index, attempt, record.handovers), token
        ):
            return True
        # The number of an attempt that was handed back is free again until the next is issued.
        issued = range(record.handovers) if attempt <= record.attempt + 1 else ()
        return any(
            hmac.compare_digest(self.spec.token(index, attempt, earlier), token)
            for earlier in issued
        )


LogEntry = tuple[Moment, Annotated[int, Field(ge=-1, le=2**31 - 1)], str, str | None, Any]
"""One change: when, node index (-1: the task), kind, status, data. Its number follows from its
place.
"""
