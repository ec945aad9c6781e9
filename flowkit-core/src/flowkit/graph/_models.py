"""Models of a graph document.

The models are strict: ``"3"`` is not a number and ``1`` is not a string. They are frozen, and
reject unknown fields. :mod:`flowkit.graph._node_checks` has the checks across nodes.
"""

from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from flowkit._json.documents import off_of_yaml
from flowkit._json.limits import MAX_ID_CHARS, PositiveSeconds, Priority, Seconds

COORDINATOR_FUNCTION = "coordinator_fn"
ALL, ALL_ENDED = -1, -2
"""Values of :attr:`NodeSpec.need` that are not a number of parents."""

LAST_VERSION = 2**31 - 1
"""Highest version of a registered flow."""

MOST_PARALLEL = 1000
"""Highest number of batches of a node that may be in process at the same time."""
MOST_SHARDS = 1000
MAX_AHEAD = 1000
"""Number of batches that a producer may be ahead of a reader whose node names none."""

NodeId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^\P{Cc}*$")]
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^\P{Cc}*$")]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class DocumentPart(BaseModel):
    """Part of a graph document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


LONGEST_BACKOFF_SEC = 60.0
"""Longest delay before a retry, where a policy gives none and its first one is not longer."""


class RetryPolicy(DocumentPart):
    """Retry policy of a node.

    Retry n is delayed by ``backoff_sec * multiplier ** (n - 1)``, at most
    ``longest_backoff_sec``.
    """

    max: Count = 2
    """Retries after the first attempt."""
    backoff_sec: Seconds = 1.0
    multiplier: Annotated[float, Field(ge=0)] = 2.0
    max_backoff_sec: Seconds | None = None
    """Longest delay. None stands for 60, or ``backoff_sec`` if that is longer."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Random fraction of a delay."""
    budget_sec: Seconds | None = None
    """Period after the start of the first attempt in which a retry may start."""
    permanent_on: tuple[Name, ...] = ("bad_input", "schema_mismatch")
    """Reason codes that are never retried.

    A list given here replaces the default: with ``[]``, invalid input is retried too.
    """

    @property
    def longest_backoff_sec(self) -> float:
        """Longest delay before a retry."""
        if self.max_backoff_sec is None:
            return max(LONGEST_BACKOFF_SEC, self.backoff_sec)
        return self.max_backoff_sec


class Timeouts(DocumentPart):
    """Time limits of a node."""

    schedule_to_start_sec: PositiveSeconds | None = None
    """From dispatch to start on a worker."""
    start_to_close_sec: PositiveSeconds | None = None
    """From the start to the end of an attempt."""
    heartbeat_sec: PositiveSeconds | None = None
    """Between two heartbeats of a running attempt."""


class Routing(DocumentPart):
    """Nodes that run after success and nodes that run after failure.

    Each name is an edge. The branch not taken is skipped.
    """

    on_success: tuple[NodeId, ...] = ()
    on_failure: tuple[NodeId, ...] = ()


class Batching(DocumentPart):
    """Division of the input into batches of ``size`` items.

    The items are those of a list, ``input_inline`` itself or its ``items``; or, if the node pulls,
    the artifacts of other nodes.
    """

    size: Annotated[int, Field(ge=1, le=2**31 - 1)]
    max_wait_sec: PositiveSeconds | None = None
    """Time after the first artifact of a batch at which it is processed with fewer items."""


def _object_or_string(value: Any) -> Any:
    if value is None or isinstance(value, (dict, str)):
        return value
    raise ValueError("must be an object or a string")


def _list_or_expression(value: Any) -> Any:
    if isinstance(value, (list, str)):
        return value
    if not isinstance(value, dict):
        raise ValueError(
            "must be a list, a string with an expression whose value is a list, or"
            " {'artifacts': '<parent>'}"
        )
    if value.keys() != {"artifacts"} or not isinstance(value["artifacts"], str):
        raise ValueError("an object must be {'artifacts': '<parent>'}, with the id of a parent")
    return value


class MapSpec(DocumentPart):
    """Map of a node: one child for each item of a list."""

    over: Annotated[Any, AfterValidator(_list_or_expression)]
    """List of items, or a string with an expression whose value is one, or ``{"artifacts": ID}``:
    the items are the artifacts that this parent stores.
    """
    as_: Annotated[str, Field(alias="as", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")] = "item"
    """Name of the item in the expressions of the input."""
    max_parallel: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Maximum number of children in flight at the same time."""
    on_item_failure: Literal["fail", "continue"] = "fail"
    """Whether a child that fails permanently fails the node, or leaves null in its result."""

    @property
    def source(self) -> str | None:
        """Parent whose artifacts are the items, or None."""
        return self.over["artifacts"] if isinstance(self.over, dict) else None


class NodeIO(DocumentPart):
    """Input of a node.

    Other fields are kept as they are: the arguments of control nodes, which
    :mod:`flowkit.graph._control_types` checks.
    """

    model_config = ConfigDict(extra="allow")

    input_inline: Any = None
    """Any JSON value. An object may name an ``input_adapter`` and its ``input_args``."""
    input_ref: Annotated[Any, AfterValidator(_object_or_string)] = None
    """Location of the input: an object or a string that the handler understands."""
    batching: Batching | None = None
    parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL)] | None = None
    """Maximum number of batches in process at the same time. Without it, they are processed in
    order.
    """
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)] | None = None
    """Number of shards, among which the artifacts that the node pulls are divided by their
    positions. Each shard runs by itself, also on another worker.
    """
    max_ahead: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Maximum number of batches that the nodes that it reads may be ahead of it while it runs, or
    is about to start. Without it, 1000.
    """
    start_when: Literal["ready", "first_batch"] = "ready"
    """``first_batch``: start when the first parent has stored its first batch.

    The batches of the other parents are read as they arrive.
    """
    fn: Name | None = None
    """Coordinator function to call."""
    fn_args: dict[str, Any] = Field(default_factory=dict)

    @property
    def input_adapter(self) -> Any:
        """Adapter named in ``input_inline``, or None."""
        return (
            self.input_inline.get("input_adapter") if isinstance(self.input_inline, dict) else None
        )


class FlowRef(NamedTuple):
    """Reference to a registered flow: to a version, or without one to the latest version."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return (
            f"flow {self.name!r}"
            if self.version is None
            else f"version {self.version} of flow {self.name!r}"
        )


class ControlIO(DocumentPart):
    """Arguments of a control node, which are the fields of its ``io``."""

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the fields, as they are written."""
        return [field.alias or name for name, field in cls.model_fields.items()]


# Shared by all nodes. Pydantic would copy a default that is a model for each node, and these copies
# would take most of the time that parsing a graph takes.
_DEFAULT_RETRY_POLICY = RetryPolicy()
_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_ROUTING = Routing()
_DEFAULT_IO = NodeIO()


class UndoSpec(DocumentPart):
    """Undo of a node: a call that takes back what the node has done."""

    type: Name
    """Role of the workers that run the undo, or ``coordinator_fn``."""
    io: NodeIO = Field(default_factory=lambda: _DEFAULT_IO)
    retry_policy: RetryPolicy = Field(default_factory=lambda: _DEFAULT_RETRY_POLICY)
    timeouts: Timeouts = Field(default_factory=lambda: _DEFAULT_TIMEOUTS)


class ConcurrencyKey(DocumentPart):
    """Concurrency key: at any time, at most ``limit`` holders have a place of it."""

    key: Name
    """Name of the key in the namespace."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1


class Concurrency(ConcurrencyKey):
    """Concurrency key of a node."""

    on_conflict: Literal["queue", "skip", "fail"] = "queue"
    """If no place is free: wait for one, or skip or fail the node."""


class TaskConcurrency(ConcurrencyKey):
    """Concurrency key of a graph, of which a task takes a place as a whole."""

    on_conflict: Literal["queue", "skip", "fail", "cancel_running"] = "queue"
    """If no place is free: wait for one, end the task as cancelled or failed, or cancel the task of
    the oldest holder and wait.
    """


class RateLimit(DocumentPart):
    """Rate: in any ``per_sec`` seconds, at most ``limit`` attempts with this key begin."""

    key: Name
    """Name of the rate in the namespace. It has nothing to do with concurrency keys."""
    limit: Annotated[int, Field(ge=1, le=1_000_000)]
    per_sec: PositiveSeconds


def _no_null(value: Any) -> Any:
    if value is None:
        raise ValueError("null is not accepted: it is the value of everything that is missing")
    return value


class Cache(DocumentPart):
    """Cache of the results of a node, shared by all tasks of the namespace."""

    key: Annotated[Any, AfterValidator(_no_null)]
    """JSON value, also with expressions. Equal keys of nodes of one role have one result."""
    ttl_sec: PositiveSeconds
    """Time for which a result is kept."""


class NodeSpec(DocumentPart):
    """Node of a graph."""

    node_id: NodeId
    type: Name
    """Role of the workers that run the node, or ``coordinator_fn``, or a control type."""
    depends_on: tuple[NodeId, ...] = ()
    fan_in: Annotated[str, Field(pattern=r"^(all|any|ended|count:[1-9][0-9]{0,8})$")] = "all"
    """Parents that must succeed before the node starts: ``all``, ``any`` or ``count:n``.

    ``ended``: the node starts when all parents have ended, even if some have failed.
    """
    on_satisfied: Literal["leave", "cancel"] = "leave"
    """Whether parents that still run when the fan-in is satisfied are cancelled."""
    optional: bool = False
    """Whether the task and the nodes below go on without the node's data if it fails."""
    retry_policy: RetryPolicy = Field(default_factory=lambda: _DEFAULT_RETRY_POLICY)
    on_batch_failure: Literal["fail", "skip"] = "fail"
    """Whether a batch that fails permanently fails the node or is skipped."""
    timeouts: Timeouts = Field(default_factory=lambda: _DEFAULT_TIMEOUTS)
    routing: Routing = Field(default_factory=lambda: _DEFAULT_ROUTING)
    when: str | None = None
    """Expression over ``params``, ``vars``, ``results``, ``errors`` and ``task``.

    If it is false, the node is skipped.
    """
    io: NodeIO = Field(default_factory=lambda: _DEFAULT_IO)
    map: MapSpec | None = None
    """Run the node once for each item of a list."""
    priority: Priority = 0
    concurrency: Concurrency | None = None
    """Key of which the node takes a place while an attempt runs."""
    concurrency_key: Name | None = None
    """Short for a ``concurrency`` with this key."""
    rate_limit: RateLimit | None = None
    """Rate at which attempts of the node begin, with those of all nodes that have its key."""
    cache: Cache | None = None
    """Take a result that was stored under this key, instead of running the node."""
    undo: UndoSpec | None = None
    """Call that takes back what the node has done, if the task fails or is cancelled."""
    labels: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _with_given_retries(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep ``retry_policy.max`` if it was given: without it, control nodes are not retried."""
        data: dict[str, Any] = serialized(self)
        if "max" in self.retry_policy.model_fields_set:
            given = {"max": self.retry_policy.max}
            data["retry_policy"] = given | data.get("retry_policy", {})
        return data

    @cached_property
    def key(self) -> Concurrency | None:
        """Concurrency key of the node, or None."""
        if self.concurrency_key is None:
            return self.concurrency
        return _short_key(self.concurrency_key)

    @property
    def need(self) -> int:
        """Number of parents that must succeed, or ``ALL`` or ``ALL_ENDED``."""
        named = _NEEDS.get(self.fan_in)
        return int(self.fan_in.removeprefix("count:")) if named is None else named


@lru_cache(maxsize=10_000)
def _short_key(key: str) -> Concurrency:
    return Concurrency(key=key)


_NEEDS = {"all": ALL, "any": 1, "ended": ALL_ENDED}


class EdgeSpec(DocumentPart):
    """Edge from ``source`` (``from`` in documents) to ``to``, which waits for it.

    If the edge streams, ``to`` waits for the first batch of ``source`` only.
    """

    source: NodeId = Field(alias="from")
    to: NodeId
    mode: Literal["sync", "async"] | None = None
    """``async``: ``to`` may run at the same time as ``source``.

    Without a trigger, it implies the trigger ``on_batch``.
    """
    trigger: Literal["on_done", "on_batch"] | None = None


def _pair_to_edge(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError('an edge is ["from", "to"] or an object with from and to')
        return {"from": value[0], "to": value[1]}
    return value


AnyEdge = Annotated[EdgeSpec, BeforeValidator(_pair_to_edge)]


class GraphDocument(DocumentPart):
    """Complete graph, as submitted.

    :meth:`flowkit.graph.Graph.parse` returns it in its normal form: plain edges are in
    ``depends_on``, streaming edges in ``edges``, and ``edges_ex`` is empty.
    """

    nodes: tuple[NodeSpec, ...]
    edges: tuple[AnyEdge, ...] = ()
    edges_ex: tuple[AnyEdge, ...] = ()
    final_nodes: tuple[NodeSpec, ...] = Field(default=(), alias="finally")
    """Nodes that run when all others have ended, also if the task fails or is cancelled."""
    on_node_failure: Literal["stop", "continue"] = "stop"
    deadline_sec: PositiveSeconds | None = None
    max_parallel: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Maximum number of nodes in flight at the same time."""
    concurrency: TaskConcurrency | None = None
    """Concurrency key of the task as a whole, from its first node until it has ended."""
    segments: Annotated[Literal["safe", "eager", "off"] | None, BeforeValidator(off_of_yaml)] = None
    """Mode in which workers run chains of nodes. By default the coordinator chooses it."""
    params: dict[str, Any] | None = None
    """JSON Schema of the task's params."""
    output: Annotated[Any, AfterValidator(_object_or_string)] = None
    """Expression, or object with expressions, whose value is the task's result."""
    schema_version: Literal["1", "1.0"] = "1"
