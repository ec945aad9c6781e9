"""Messages on the bus: commands to workers, reports from workers, and hints in both directions.

Every message is one JSON object with its ``kind`` and the version ``v`` of its format. A reader
raises :class:`~flowkit.errors.DecodeError`, and the message is parked, if it has an unknown field,
kind or version, is above the limits of :mod:`flowkit._json.limits`, or contains a number that is
not finite. Writers check the same.

The headers repeat the version, and carry the trace of the task.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from flowkit._json.limits import (
    MAX_ID_CHARS,
    MAX_UID_CHARS,
    MAX_WORKER_ID_CHARS,
    SHORT,
    Count,
    Moment,
    PositiveSeconds,
    above_bounds,
    has_constants,
    has_controls,
    is_finite,
    may_overflow,
)
from flowkit._text.validation_errors import message_of
from flowkit.errors import DecodeError, MessageError, MessageTooLarge
from flowkit.graph import RetryPolicy
from flowkit.task import KeptArtifact
from flowkit.tracing import TraceContext

VERSION: Literal[1] = 1

_MOST_SHOWN = 300
_HEADERS: Mapping[str, bytes] = MappingProxyType({"flowkit-version": b"%d" % VERSION})
ADDRESSEE = "flowkit-worker"
"""Header of a message on the control topic that is for one worker: its id. Others ignore it."""


_NO_CONTROLS = "no control characters"
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS), _NO_CONTROLS]
HostId = Annotated[str, Field(min_length=1, max_length=MAX_WORKER_ID_CHARS), _NO_CONTROLS]
"""Id that may contain the name of a host."""


class _AnyMessage(BaseModel):
    # An infinite number is written as a constant, so that encode finds it, and not as null.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    v: Literal[1] = VERSION


class _Message(_AnyMessage):
    task_id: Id


class _NodeMessage(_Message):
    index: int = Field(ge=0, le=2**31 - 1)
    """Position of the node in the graph."""
    attempt: int = Field(ge=1, le=2**31 - 1)
    token: Annotated[str, Field(max_length=64, pattern="^[ -~]*$")]
    """Proof that the sender was given this attempt."""


class Source(BaseModel):
    """Stream of artifacts that a node may read: that of a parent, in its current generation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Id
    generation: Count = 0
    ended: bool = False
    """The parent has ended: no artifacts will be added."""
    batches: Count | None = None
    """Number of batches that the parent stored, or None if it has not finished."""
    result_only: bool = False
    """The parent finished with a result and not in batches, so it cannot have artifacts."""
    kept: tuple[KeptArtifact, ...] = ()
    """All artifacts of the parent, if they are stored in its record."""
    shards: Count = 0
    """Number of shards that the parent has; 0 if it is not sharded."""


class BatchRetries(BaseModel):
    """Retries of batches of a node, beyond the one try of each batch in each attempt.

    Each announcement has a higher ``number`` than the previous one; of two, the higher one is
    valid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count = 0
    tries: dict[Annotated[str, Field(max_length=MAX_UID_CHARS)], Count] = Field(
        default_factory=dict
    )
    """Number of retries that were started, by the uid of the batch."""


class ExpressionData(BaseModel):
    """Data of the task that only the expressions in a node's input see."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    created_at: Moment
    without_result: tuple[Id, ...] = ()
    """Nodes that the expressions read and that have no result."""
    names: dict[str, Any] = Field(default_factory=dict)
    """Values of the names that only the expressions of some nodes can read: ``result``, and the
    item of a child of a map with its number.
    """
    task: dict[str, Any] = Field(default_factory=dict)
    """Fields of the name ``task`` that only some of them can read: ``status``, ``error``."""


class RunContextData(BaseModel):
    """Data of the task that a node sees, if it is small enough to travel with the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    io: dict[str, Any]
    params: dict[str, Any]
    vars: dict[str, Any]
    results: dict[str, Any]
    """Results of the parents and of the nodes that the expressions read, by node id."""
    errors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """``reason_code``, ``error`` and ``attempt`` of those of these nodes that failed, by node
    id.
    """
    streams: bool = False
    """The node reads a parent's artifacts while it runs."""
    params_key: Annotated[str, Field(max_length=64)] = ""
    """Hash of params that are too large for the commands of many children: ``params`` is empty, and
    the worker reads them from the store once.
    """
    expressions: ExpressionData | None = None
    """Set if ``io`` contains expressions, which the worker evaluates."""
    results_apart: bool = False
    """The node has many parents: ``results`` and ``errors`` are empty, and the worker reads them
    from the store if its handler takes them.
    """


class SegmentNode(BaseModel):
    """Node that the worker may run right after the one before it, if it serves its role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, le=2**31 - 1)
    token: Annotated[str, Field(max_length=64, pattern="^[ -~]*$")]
    """Proof that the sender was given this attempt, right after that of the node before."""
    node_id: Id
    role: Id
    generation: Count = 0
    retry_policy: RetryPolicy = RetryPolicy()
    on_batch_failure: Literal["fail", "skip"] = "fail"
    heartbeat_sec: PositiveSeconds | None = None
    io: dict[str, Any]
    reads: tuple[Id, ...] | None = None
    """Set if ``io`` contains expressions: the earlier nodes of the segment that they read."""


class Segment(BaseModel):
    """Nodes that follow a node in a chain. The worker may run them one after the other in the slot
    of the first, each with the result of the one before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: Annotated[tuple[SegmentNode, ...], Field(min_length=1)]
    eager: bool = False
    """The worker begins a node before the bus has acknowledged the result of the one before."""
    expressions: ExpressionData | None = None
    """Set if a node of the segment has expressions."""


class NextStart(BaseModel):
    """Start of the next node of a segment, reported with the success of the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, le=2**31 - 1)
    attempt: int = Field(ge=1, le=2**31 - 1)
    token: Annotated[str, Field(max_length=64, pattern="^[ -~]*$")]


# ---------------------------------------------------------------- coordinator to worker


class RunNode(_NodeMessage):
    """Run an attempt of a node."""

    kind: Literal["run_node"] = "run_node"
    node_id: Id
    role: Id
    generation: Count = 0
    priority: int = Field(0, ge=-(2**33), le=2**33)
    resumed: bool = False
    """A worker handed this attempt back: some of its batches may be stored already."""
    earlier_attempts: Count = 0
    """Number of earlier attempts in this run of the node."""
    first_issued_at: Moment = 0.0
    """Time at which the first attempt was issued, set if the retry policy has a budget."""
    retry_policy: RetryPolicy = RetryPolicy()
    retries: BatchRetries | None = None
    """Batches that are being retried."""
    on_batch_failure: Literal["fail", "skip"] = "fail"
    heartbeat_sec: PositiveSeconds | None = None
    """Longest time between two heartbeats of the node."""
    data: RunContextData | None = None
    """None: too large for the command, the worker reads it from the store."""
    sources: tuple[Source, ...] | None = ()
    """Streams that the node may read, or None if the worker has to read them from the store."""
    streamed: bool = False
    """Other nodes may read this node's artifacts while it runs."""
    readers: dict[Id, Count] = Field(default_factory=dict)
    """Nodes that soon read this node's artifacts, and the number of batches that this node may be
    ahead of each. Until it hears of one, it counts as one that has read nothing, for a while.
    """
    mapped: bool = False
    """Maps read this node's artifacts while it runs: each stored batch is reported."""
    progress: Any = None
    """Progress that the last attempt reported."""
    exclusive: bool = False
    """The attempt runs in the place of a concurrency key, which must not be given back too early:
    its end is reported when its handler has ended.
    """
    rated: bool = False
    """The node has a rate: that the handler begins is reported."""
    shard: Count | None = None
    """Number of the shard that runs. None for other nodes, and for the end of a sharded node."""
    segment: Segment | None = None
    """Nodes that the worker may run right after this one."""


class EndSegments(_Message):
    """End the segments of a task: begin no further nodes of it without commands. Sent to every
    worker.
    """

    kind: Literal["end_segments"] = "end_segments"


class CancelRun(_NodeMessage):
    """Cancel an attempt. Sent to every worker; the one that runs the attempt cancels it."""

    kind: Literal["cancel_run"] = "cancel_run"
    reason: str = ""


class AskRun(_NodeMessage):
    """Ask for the state of an attempt. Sent to every worker; the one that started it answers."""

    kind: Literal["ask_run"] = "ask_run"
    worker_id: HostId


class StreamMoved(_Message):
    """Hint to the readers of a node's artifacts: there are more, or the stream has ended."""

    kind: Literal["stream_moved"] = "stream_moved"
    node_id: Id
    generation: Count = 0
    ended: bool = False


class StreamRead(_Message):
    """Position of a running node in the artifacts of another. Sent to every worker: the other node
    waits while the reader is too far behind.
    """

    kind: Literal["stream_read"] = "stream_read"
    node_id: Id
    generation: Count = 0
    reader: Id
    """Node that reads."""
    position: Count | None
    """Number of artifacts that it has taken. None: it reads no more."""
    of_shards: tuple[Count, ...] = ()
    """Number of batches of each shard among these artifacts, if the other node has shards."""
    max_ahead: Count
    """Number of batches that the other node may be ahead."""


# ---------------------------------------------------------------- worker to worker


class RunsWaiting(_AnyMessage):
    """Number of runs that wait for a slot of a worker. Sent to every worker: those with free slots
    request some of the runs. If none waits, sent to a worker that has requested some.
    """

    kind: Literal["runs_waiting"] = "runs_waiting"
    worker_id: HostId
    roles: dict[Id, Count]
    """Number of runs by role."""


class RequestRuns(_AnyMessage):
    """Request waiting runs of a worker. Sent to every worker by one that starts: those with waiting
    runs announce them again.
    """

    kind: Literal["request_runs"] = "request_runs"
    worker_id: HostId
    """Worker that requests them."""
    roles: tuple[Id, ...]
    most: Count


# ---------------------------------------------------------------- worker to coordinator


class NodeStarted(_NodeMessage):
    """A worker started an attempt."""

    kind: Literal["node_started"] = "node_started"
    worker_id: HostId
    at: Moment
    begun: bool = False
    """The handler of a node with a rate has begun. False: it begins after this report, or another
    process reports the start.
    """
    ends_segment: bool = False
    """The worker begins no other node of the segment after this one."""


class NodeProgressed(_NodeMessage):
    """A handler reported progress, which is also its heartbeat."""

    kind: Literal["node_progressed"] = "node_progressed"
    worker_id: HostId
    progress: Any = None
    at: Moment


class BatchStored(_NodeMessage):
    """A running node stored its first batch, or another one that a map reads."""

    kind: Literal["batch_stored"] = "batch_stored"
    worker_id: HostId
    at: Moment


class BatchesRetried(_NodeMessage):
    """A running node waits and then retries batches; also a heartbeat.

    Sent before each retry.
    """

    kind: Literal["batches_retried"] = "batches_retried"
    worker_id: HostId
    at: Moment
    retries: BatchRetries


class NodeHeldUp(_NodeMessage):
    """A running node waits for a reader of its artifacts, or goes on; also a heartbeat."""

    kind: Literal["node_held_up"] = "node_held_up"
    worker_id: HostId
    at: Moment
    reader: Id | None
    """Node that is too far behind. None: the node goes on."""
    batches: Count = 0
    """Number of batches that the reader is behind."""


class NodeSucceeded(_NodeMessage):
    """An attempt succeeded."""

    kind: Literal["node_succeeded"] = "node_succeeded"
    worker_id: HostId
    started_at: Moment
    at: Moment
    result: Any = None
    metrics: dict[str, float | int] = Field(default_factory=dict)
    batches: Count = 0
    in_batches: bool = False
    """The handler works in batches, even if there were none."""
    pulled: bool = False
    """The batches came from the parents' artifacts, which were read to their end."""
    skipped: Count = 0
    """Number of batches that failed permanently and were skipped."""
    kept: tuple[KeptArtifact, ...] = ()
    """All artifacts of the node, if the run was short: they are stored with this report."""
    next: NextStart | None = None
    """The worker goes on with this node of the segment."""


class NodeFailed(_NodeMessage):
    """An attempt failed."""

    kind: Literal["node_failed"] = "node_failed"
    worker_id: HostId
    started_at: Moment
    at: Moment
    reason_code: Id
    permanent: bool = False
    error: str = ""
    metrics: dict[str, float | int] = Field(default_factory=dict)
    parked: bool = False
    """A dead letter of the failed batch is stored, so the node needs none."""


class NodeStopped(_NodeMessage):
    """An attempt ended because it was cancelled."""

    kind: Literal["node_stopped"] = "node_stopped"
    worker_id: HostId
    at: Moment
    metrics: dict[str, float | int] = Field(default_factory=dict)


class NodeReleased(_NodeMessage):
    """A worker that stops hands an attempt back. The attempt does not count."""

    kind: Literal["node_released"] = "node_released"
    worker_id: HostId
    at: Moment
    progress: Any = None
    retries: BatchRetries | None = None


class TaskTouched(_Message):
    """Hint to load a task: it was created, or a client changed it."""

    kind: Literal["task_touched"] = "task_touched"


class ScheduleTouched(_AnyMessage):
    """Hint to read a schedule: it was put, or a client changed it."""

    kind: Literal["schedule_touched"] = "schedule_touched"
    schedule_id: Id


# ---------------------------------------------------------------- coordinator to coordinator


class ChildEnded(_Message):
    """Hint to the coordinator of a task that the child task of a node has ended."""

    kind: Literal["child_ended"] = "child_ended"
    index: int = Field(ge=0, le=2**31 - 1)
    """Position of the node in the graph."""


WorkerReport = (
    NodeStarted
    | NodeProgressed
    | BatchStored
    | BatchesRetried
    | NodeHeldUp
    | NodeSucceeded
    | NodeFailed
    | NodeStopped
    | NodeReleased
)
AnyMessage = Annotated[
    RunNode
    | EndSegments
    | CancelRun
    | AskRun
    | StreamMoved
    | StreamRead
    | RunsWaiting
    | RequestRuns
    | NodeStarted
    | NodeProgressed
    | BatchStored
    | BatchesRetried
    | NodeHeldUp
    | NodeSucceeded
    | NodeFailed
    | NodeStopped
    | NodeReleased
    | TaskTouched
    | ScheduleTouched
    | ChildEnded,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(
    cls.model_fields["kind"].default for cls in get_args(get_args(AnyMessage)[0])
)

_any: TypeAdapter[Any] = TypeAdapter(AnyMessage)

_MODELS: tuple[type[BaseModel], ...] = (
    *get_args(get_args(AnyMessage)[0]),
    Source,
    SegmentNode,
)
_OPEN = {
    model: tuple(
        name
        for name, field in model.model_fields.items()
        if field.annotation in (Any, RunContextData | None)
    )
    for model in _MODELS
}
"""Fields that accept any JSON value."""
_IDS = {
    model: tuple(
        name for name, field in model.model_fields.items() if _NO_CONTROLS in field.metadata
    )
    for model in _MODELS
}


def headers_of(trace: TraceContext | None) -> Mapping[str, bytes]:
    """Return the headers of a message: the version of its format, and the trace of its task."""
    if trace is None:
        return _HEADERS
    headers = {**_HEADERS, "traceparent": trace.traceparent.encode()}
    if trace.tracestate:
        headers["tracestate"] = trace.tracestate.encode()
    return headers


def encode(message: BaseModel | dict[str, Any], *, limit: int | None = None) -> bytes:
    """Return the bytes of a message, or of its fields.

    Raises:
        MessageError: a value in it cannot be written as JSON, or is NaN or an infinity.
        MessageTooLarge: the bytes are more than ``limit``, or above the limits of a reader.
    """
    try:
        data = to_json(message, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise MessageError(f"a {_name(message)} cannot be written as JSON: {error}") from None
    if (len(data) >= SHORT or limit is not None) and (
        excess := above_bounds(data, limit)
    ) is not None:
        raise MessageTooLarge(f"a {_name(message)} cannot be sent: {excess}")
    # Searching for a single byte is several times faster than searching for a word.
    if (b"N" in data or b"I" in data) and has_constants(data):
        raise MessageError(f"a {_name(message)} cannot be written as JSON: a number is not finite")
    return data


def _name(message: BaseModel | dict[str, Any]) -> str:
    return str(message["kind"]) if isinstance(message, dict) else type(message).__name__


class Refused(bytes):
    """Bytes of a message that must not be read, with the reason."""

    reason: str

    def __new__(cls, data: bytes, reason: str) -> Self:
        made = super().__new__(cls, data)
        made.reason = reason
        return made


def decode(data: bytes, *, limit: int | None = None) -> Any:
    """Return the message in these bytes.

    Raises:
        DecodeError: the bytes are :class:`Refused`, above ``limit`` or another limit, not JSON,
            or not a message of a known kind, version and format.
    """
    if data.__class__ is Refused:
        raise DecodeError(data.reason)
    if (len(data) >= SHORT or limit is not None) and (
        excess := above_bounds(data, limit)
    ) is not None:
        raise DecodeError(f"the message is above a limit: {excess}")
    try:
        message = _any.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise DecodeError(
            f"invalid message: {place[:_MOST_SHOWN]}: {message_of(first)[:_MOST_SHOWN]}"
        ) from None
    if (names := _OPEN[message.__class__]) and may_overflow(data):
        _check_finite(message, names)
    values = message.__dict__
    for name in _IDS[message.__class__]:
        if not values[name].isprintable():
            _check_ids(message)
    if message.__class__ is RunNode and message.sources:
        for source in message.sources:
            _check_ids(source)
    if message.__class__ is RunNode and message.segment is not None:
        for node in message.segment.nodes:
            _check_ids(node)
            if may_overflow(data) and not is_finite(node.io):
                raise DecodeError("invalid message: segment: a number is not finite")
    return message


def _check_finite(message: BaseModel, names: Iterable[str]) -> None:
    """Refuse infinite numbers in fields that the model does not check.

    JSON cannot write them, but they would be stored and shown.
    """
    for name in names:
        value = getattr(message, name)
        if value is not None and not is_finite(
            value.__dict__ if value.__class__ is RunContextData else value
        ):
            raise DecodeError(f"invalid message: {name}: a number is not finite")


def _check_ids(message: BaseModel) -> None:
    for name in _IDS[message.__class__]:
        if has_controls(getattr(message, name)):
            raise DecodeError(f"invalid message: {name}: it contains control characters")
