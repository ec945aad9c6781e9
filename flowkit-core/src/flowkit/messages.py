"""What travels on the bus: commands to workers, reports from them, hints between both.

Every message is one JSON object with its ``kind`` and the version ``v`` of its form. A reader takes
no unknown field, kind or version, no text above the bounds of :mod:`flowkit._json.limits`, and no
number that is not finite: it raises :class:`~flowkit.errors.DecodeError`, and the message is
parked. Writers are held to the same.

The headers tell those who do not read the value what form it has, and which trace it belongs to.
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
from flowkit.errors import DecodeError, MessageError, MessageTooLarge
from flowkit.graph import RetryPolicy
from flowkit.tracing import TraceContext

VERSION: Literal[1] = 1

_MOST_SHOWN = 300
_HEADERS: Mapping[str, bytes] = MappingProxyType({"flowkit-version": b"%d" % VERSION})


_NO_CONTROLS = "no control characters"
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS), _NO_CONTROLS]
HostId = Annotated[str, Field(min_length=1, max_length=MAX_WORKER_ID_CHARS), _NO_CONTROLS]
"""May hold the name of a host."""


_DEFAULT_RETRY_POLICY = RetryPolicy()


class _Message(BaseModel):
    # A number that is not finite is written as such, to be found by encode, and not as null.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    v: Literal[1] = VERSION
    task_id: Id


class _NodeMessage(_Message):
    index: int = Field(ge=0, le=2**31 - 1)
    """The node's place in the graph."""
    attempt: int = Field(ge=1, le=2**31 - 1)
    token: Annotated[str, Field(max_length=64, pattern="^[ -~]*$")]
    """Proves that the sender was given this attempt."""


class Source(BaseModel):
    """A stream of artifacts that a node may read: a parent's, in its present generation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Id
    generation: Count = 0
    ended: bool = False
    """The parent has ended: nothing will be added."""
    batches: Count | None = None
    """How many batches the parent had stored when it finished; None if it has not finished."""
    result_only: bool = False
    """The parent finished with a result and does not work in batches, so that it cannot have
    artifacts.
    """


class BatchRetries(BaseModel):
    """Which batches of a node are tried again, beyond the one try that each has in each attempt.

    Each announcement has a higher ``number`` than the last; of two the higher counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Count = 0
    tries: dict[Annotated[str, Field(max_length=MAX_UID_CHARS)], Count] = Field(
        default_factory=dict
    )
    """How many further tries were begun, by the uid of the batch."""


class RunContextData(BaseModel):
    """What a node sees of its task, where it is small enough to travel with the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    io: dict[str, Any]
    params: dict[str, Any]
    vars: dict[str, Any]
    results: dict[str, Any]
    """Results of the parents, by node id."""
    errors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """``reason_code``, ``error`` and ``attempt`` of the parents that failed, by node id."""
    streams: bool = False
    """The node reads a parent's artifacts while it runs."""


# ---------------------------------------------------------------- coordinator to worker


class RunNode(_NodeMessage):
    """Run an attempt of a node."""

    kind: Literal["run_node"] = "run_node"
    node_id: Id
    role: Id
    generation: Count = 0
    priority: int = Field(0, ge=-(2**33), le=2**33)
    resumed: bool = False
    """A worker began this attempt and handed it back: batches of it may be stored already."""
    earlier_attempts: Count = 0
    """How many of this run of the node came before this one."""
    first_issued_at: Moment = 0.0
    """When the first of them was issued; told where the retry policy has a budget."""
    retry_policy: RetryPolicy = Field(default_factory=lambda: _DEFAULT_RETRY_POLICY)
    retries: BatchRetries | None = None
    """Batches that are being tried again."""
    on_batch_failure: Literal["fail", "skip"] = "fail"
    heartbeat_sec: PositiveSeconds | None = None
    """How long the node may be silent."""
    data: RunContextData | None = None
    """None: too large to travel, read it from the store."""
    sources: tuple[Source, ...] | None = ()
    """The streams that the node may read; None: too many to travel, look them up in the store."""
    streamed: bool = False
    """Somebody may read this node's artifacts while it runs."""
    progress: Any = None
    """What the last attempt reported."""


class CancelRun(_NodeMessage):
    """Stop an attempt. Sent to every worker; the one that runs it obeys."""

    kind: Literal["cancel_run"] = "cancel_run"
    reason: str = ""


class AskRun(_NodeMessage):
    """What became of an attempt? Sent to every worker; the one that began it tells once more what
    it knows.
    """

    kind: Literal["ask_run"] = "ask_run"
    worker_id: HostId


class StreamMoved(_Message):
    """A hint to whoever reads a node's artifacts: there are more, or it has ended."""

    kind: Literal["stream_moved"] = "stream_moved"
    node_id: Id
    generation: Count = 0
    ended: bool = False


# ---------------------------------------------------------------- worker to coordinator


class NodeStarted(_NodeMessage):
    """A worker began an attempt."""

    kind: Literal["node_started"] = "node_started"
    worker_id: HostId
    at: Moment


class NodeProgressed(_NodeMessage):
    """A handler reported progress, which is also its heartbeat."""

    kind: Literal["node_progressed"] = "node_progressed"
    worker_id: HostId
    progress: Any = None
    at: Moment


class BatchStored(_NodeMessage):
    """A running node stored its first batch."""

    kind: Literal["batch_stored"] = "batch_stored"
    worker_id: HostId
    at: Moment


class BatchesRetried(_NodeMessage):
    """A running node tries batches again, and waits until it is time to: a sign of life, sent
    before each such try.
    """

    kind: Literal["batches_retried"] = "batches_retried"
    worker_id: HostId
    at: Moment
    retries: BatchRetries


class NodeSucceeded(_NodeMessage):
    """An attempt came to a good end."""

    kind: Literal["node_succeeded"] = "node_succeeded"
    worker_id: HostId
    started_at: Moment
    at: Moment
    result: Any = None
    metrics: dict[str, float | int] = Field(default_factory=dict)
    batches: Count = 0
    in_batches: bool = False
    """The handler works in batches, however many there were."""
    pulled: bool = False
    """The batches came from the artifacts of the node's parents, read until these had ended."""
    skipped: Count = 0
    """Batches that failed for good, without which the node went on."""


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
    """A dead letter of the batch that failed is stored: the node needs none."""


class NodeStopped(_NodeMessage):
    """An attempt ended because it was cancelled."""

    kind: Literal["node_stopped"] = "node_stopped"
    worker_id: HostId
    at: Moment
    metrics: dict[str, float | int] = Field(default_factory=dict)


class NodeReleased(_NodeMessage):
    """A worker that stops hands an attempt back; it counts as not having been made."""

    kind: Literal["node_released"] = "node_released"
    worker_id: HostId
    at: Moment
    progress: Any = None
    retries: BatchRetries | None = None


class TaskTouched(_Message):
    """A hint: the task was created, or changed by a client. Look at it."""

    kind: Literal["task_touched"] = "task_touched"


WorkerReport = (
    NodeStarted
    | NodeProgressed
    | BatchStored
    | BatchesRetried
    | NodeSucceeded
    | NodeFailed
    | NodeStopped
    | NodeReleased
)
AnyMessage = Annotated[
    RunNode
    | CancelRun
    | AskRun
    | StreamMoved
    | NodeStarted
    | NodeProgressed
    | BatchStored
    | BatchesRetried
    | NodeSucceeded
    | NodeFailed
    | NodeStopped
    | NodeReleased
    | TaskTouched,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(
    cls.model_fields["kind"].default for cls in get_args(get_args(AnyMessage)[0])
)

_any: TypeAdapter[Any] = TypeAdapter(AnyMessage)

_MODELS: tuple[type[BaseModel], ...] = (*get_args(get_args(AnyMessage)[0]), Source)
_OPEN = {
    model: tuple(
        name
        for name, field in model.model_fields.items()
        if field.annotation in (Any, RunContextData | None)
    )
    for model in _MODELS
}
"""Fields that take any value of JSON."""
_IDS = {
    model: tuple(
        name for name, field in model.model_fields.items() if _NO_CONTROLS in field.metadata
    )
    for model in _MODELS
}


def headers_of(trace: TraceContext | None) -> Mapping[str, bytes]:
    """The headers of a message: the version of its form, and the trace of its task if it has
    one.
    """
    if trace is None:
        return _HEADERS
    headers = {**_HEADERS, "traceparent": trace.traceparent.encode()}
    if trace.tracestate:
        headers["tracestate"] = trace.tracestate.encode()
    return headers


def encode(message: BaseModel | dict[str, Any], *, limit: int | None = None) -> bytes:
    """The bytes of a message, or of its fields.

    Raises:
        MessageError: a value in it cannot be written as JSON, or is NaN or an infinity.
        MessageTooLarge: they are more than ``limit``, or more or deeper than a reader takes.
    """
    try:
        data = to_json(message, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise MessageError(f"a {_name(message)} cannot be written as JSON: {error}") from None
    if (len(data) >= SHORT or limit is not None) and (
        excess := above_bounds(data, limit)
    ) is not None:
        raise MessageTooLarge(f"a {_name(message)} cannot be sent: {excess}")
    # A single byte is found several times faster than a word.
    if (b"N" in data or b"I" in data) and has_constants(data):
        raise MessageError(
            f"a {_name(message)} cannot be written as JSON: it holds a number that is not finite"
        )
    return data


def _name(message: BaseModel | dict[str, Any]) -> str:
    return str(message["kind"]) if isinstance(message, dict) else type(message).__name__


class Refused(bytes):
    """The bytes of a message that is not to be read, whatever they say, and why."""

    reason: str

    def __new__(cls, data: bytes, reason: str) -> Self:
        made = super().__new__(cls, data)
        made.reason = reason
        return made


def decode(data: bytes, *, limit: int | None = None) -> Any:
    """The message in these bytes.

    Raises:
        DecodeError: they are not JSON, or not a message of a known kind, version and form, or
            longer than ``limit``, or above the bounds,
            or :class:`Refused`.
    """
    if data.__class__ is Refused:
        raise DecodeError(data.reason)
    if (len(data) >= SHORT or limit is not None) and (
        excess := above_bounds(data, limit)
    ) is not None:
        raise DecodeError(f"not a message to read: {excess}")
    try:
        message = _any.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise DecodeError(
            f"not a message this version knows: {place[:_MOST_SHOWN]}: {first['msg'][:_MOST_SHOWN]}"
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
    return message


def _check_finite(message: BaseModel, names: Iterable[str]) -> None:
    """What the model does not look into: a number that no JSON can say would be stored, and
    shown.
    """
    for name in names:
        value = getattr(message, name)
        if value is not None and not is_finite(
            value.__dict__ if value.__class__ is RunContextData else value
        ):
            raise DecodeError(f"not a message this version knows: {name}: numbers should be finite")


def _check_ids(message: BaseModel) -> None:
    for name in _IDS[message.__class__]:
        if has_controls(getattr(message, name)):
            raise DecodeError(
                f"not a message this version knows: {name}: there are control characters in it"
            )
