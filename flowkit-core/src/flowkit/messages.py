"""What travels on the bus: commands to workers, reports from them, hints between both.

Every message is one JSON object with its ``kind`` and the version ``v`` of its form. A reader takes no unknown field,
kind or version: it raises :class:`~flowkit.errors.DecodeError`, and the message is parked.

The headers tell those who do not read the value what form it has, and which trace it belongs to.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from flowkit.errors import DecodeError, MessageError, MessageTooLarge
from flowkit.tracing import TraceContext

VERSION: Literal[1] = 1

_HEADERS: Mapping[str, bytes] = MappingProxyType({"flowkit-version": b"%d" % VERSION})


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    v: Literal[1] = VERSION
    task_id: str = Field(max_length=200)


class _NodeMessage(_Message):
    index: int = Field(ge=0, le=2**31 - 1)
    """The node's place in the graph."""
    attempt: int = Field(ge=1, le=2**31 - 1)
    token: str = Field(max_length=64)
    """Proves that the sender was given this attempt."""


class Source(BaseModel):
    """A stream of artifacts that a node may read: a parent's, in its present generation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: str
    generation: int = 0
    ended: bool = False
    """The parent has ended: nothing will be added."""


class RunContextData(BaseModel):
    """What a node sees of its task, where it is small enough to travel with the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    io: dict[str, Any]
    params: dict[str, Any]
    vars: dict[str, Any]
    results: dict[str, Any]
    """Results of the parents, by node id."""


# ---------------------------------------------------------------- coordinator to worker


class RunNode(_NodeMessage):
    """Run an attempt of a node."""

    kind: Literal["run_node"] = "run_node"
    node_id: str
    role: str
    generation: int = 0
    priority: int = 0
    resumed: bool = False
    """A worker began this attempt and handed it back: batches of it may be stored already."""
    last_attempt: bool = False
    """The retry policy allows none after this one."""
    permanent_on: tuple[str, ...] = ()
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


class StreamMoved(_Message):
    """A hint to whoever reads a node's artifacts: there are more, or it has ended."""

    kind: Literal["stream_moved"] = "stream_moved"
    node_id: str
    generation: int = 0
    ended: bool = False


# ---------------------------------------------------------------- worker to coordinator


class NodeStarted(_NodeMessage):
    """A worker began an attempt."""

    kind: Literal["node_started"] = "node_started"
    worker_id: str
    at: float


class NodeProgressed(_NodeMessage):
    """A handler reported progress, which is also its heartbeat."""

    kind: Literal["node_progressed"] = "node_progressed"
    worker_id: str
    progress: Any = None
    at: float


class BatchStored(_NodeMessage):
    """A running node stored its first batch."""

    kind: Literal["batch_stored"] = "batch_stored"
    worker_id: str
    at: float


class NodeSucceeded(_NodeMessage):
    """An attempt came to a good end."""

    kind: Literal["node_succeeded"] = "node_succeeded"
    worker_id: str
    started_at: float
    at: float
    result: Any = None
    metrics: dict[str, float | int] = Field(default_factory=dict)
    batches: int = 0


class NodeFailed(_NodeMessage):
    """An attempt failed."""

    kind: Literal["node_failed"] = "node_failed"
    worker_id: str
    started_at: float
    at: float
    reason_code: str
    permanent: bool = False
    error: str = ""
    metrics: dict[str, float | int] = Field(default_factory=dict)


class NodeStopped(_NodeMessage):
    """An attempt ended because it was cancelled."""

    kind: Literal["node_stopped"] = "node_stopped"
    worker_id: str
    at: float


class NodeReleased(_NodeMessage):
    """A worker that stops hands an attempt back; it counts as not having been made."""

    kind: Literal["node_released"] = "node_released"
    worker_id: str
    at: float
    progress: Any = None


class TaskTouched(_Message):
    """A hint: the task was created, or changed by a client. Look at it."""

    kind: Literal["task_touched"] = "task_touched"


WorkerReport = NodeStarted | NodeProgressed | BatchStored | NodeSucceeded | NodeFailed | NodeStopped | NodeReleased
AnyMessage = Annotated[
    RunNode
    | CancelRun
    | StreamMoved
    | NodeStarted
    | NodeProgressed
    | BatchStored
    | NodeSucceeded
    | NodeFailed
    | NodeStopped
    | NodeReleased
    | TaskTouched,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(cls.model_fields["kind"].default for cls in get_args(get_args(AnyMessage)[0]))

_any: TypeAdapter[Any] = TypeAdapter(AnyMessage)


def headers_of(trace: TraceContext | None) -> Mapping[str, bytes]:
    """The headers of a message: the version of its form, and the trace of its task if it has one."""
    if trace is None:
        return _HEADERS
    headers = {**_HEADERS, "traceparent": trace.traceparent.encode()}
    if trace.tracestate:
        headers["tracestate"] = trace.tracestate.encode()
    return headers


def encode(message: BaseModel | dict[str, Any], *, limit: int | None = None) -> bytes:
    """The bytes of a message, or of its fields.

    Raises:
        MessageError: a value in it cannot be written as JSON.
        MessageTooLarge: they are more than ``limit``.
    """
    try:
        data = to_json(message, inf_nan_mode="constants")
    except PydanticSerializationError as error:
        raise MessageError(f"a {_name(message)} cannot be written as JSON: {error}") from None
    if limit is not None and len(data) > limit:
        raise MessageTooLarge(f"a {_name(message)} of {len(data)} bytes is above the limit of {limit}")
    return data


def _name(message: BaseModel | dict[str, Any]) -> str:
    return str(message["kind"]) if isinstance(message, dict) else type(message).__name__


def decode(data: bytes, *, limit: int | None = None) -> Any:
    """The message in these bytes.

    Raises:
        DecodeError: they are not JSON, or not a message of a known kind, version and form, or longer than ``limit``.
    """
    if limit is not None and len(data) > limit:
        raise DecodeError(f"a message of {len(data)} bytes is above the limit of {limit}")
    try:
        return _any.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise DecodeError(f"not a message this version knows: {place}: {first['msg']}") from None
