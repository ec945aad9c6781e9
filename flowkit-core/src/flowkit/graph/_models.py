"""The parts of a graph document, field by field. What concerns several nodes is checked in
:mod:`flowkit.graph._node_checks`.

The models are strict: ``"3"`` is not a number and ``1`` is not a string. They are frozen, and
refuse fields they do not know.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from flowkit._json.limits import PositiveSeconds, Priority, Seconds

COORDINATOR_FUNCTION = "coordinator_fn"

NodeId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\P{Cc}*$")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\P{Cc}*$")]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class DocumentPart(BaseModel):
    """A part of a graph document."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RetryPolicy(DocumentPart):
    """When a failed attempt is tried again. The n-th retry waits ``backoff_sec * multiplier ** (n -
    1)``, at most ``max_backoff_sec``.
    """

    max: Count = 2
    """Retries after the first attempt."""
    backoff_sec: Seconds = 1.0
    multiplier: Annotated[float, Field(ge=0)] = 2.0
    max_backoff_sec: Seconds = 60.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of a pause that is left to chance."""
    budget_sec: Seconds | None = None
    """No retry begins later than this after the first attempt began."""
    permanent_on: tuple[Name, ...] = ("bad_input", "schema_mismatch")
    """Reason codes that are never retried. A list given here replaces this one: with ``[]``, wrong
    input is retried too.
    """


class Timeouts(DocumentPart):
    """How long a node may take."""

    schedule_to_start_sec: PositiveSeconds | None = None
    """From dispatch until a worker begins."""
    start_to_close_sec: PositiveSeconds | None = None
    """From the beginning of an attempt until its end."""
    heartbeat_sec: PositiveSeconds | None = None
    """Between two signs of life of a running attempt."""


class Routing(DocumentPart):
    """Which nodes follow a good end and which a bad one. Each name is an edge; the branch not taken
    is skipped.
    """

    on_success: tuple[NodeId, ...] = ()
    on_failure: tuple[NodeId, ...] = ()


class Batching(DocumentPart):
    """A list given in ``input_inline`` (itself, or its ``items``) is cut into batches of ``size``
    items.
    """

    size: Annotated[int, Field(ge=1, le=2**31 - 1)]


def _object_or_string(value: Any) -> Any:
    if value is None or isinstance(value, (dict, str)):
        return value
    raise ValueError("must be an object or a string")


class NodeIO(DocumentPart):
    """What a node works on."""

    input_inline: Any = None
    """Any JSON value. An object may name an ``input_adapter`` and its ``input_args``."""
    input_ref: Annotated[Any, AfterValidator(_object_or_string)] = None
    """Where the input is: an object or a string that the handler understands."""
    batching: Batching | None = None
    start_when: Literal["ready", "first_batch"] = "ready"
    """``first_batch``: start when the first parent stored its first batch, and read the others as
    they come.
    """
    fn: Name | None = None
    """The coordinator function to call."""
    fn_args: dict[str, Any] = Field(default_factory=dict)

    @property
    def input_adapter(self) -> Any:
        """The adapter that ``input_inline`` names, if it does."""
        return (
            self.input_inline.get("input_adapter") if isinstance(self.input_inline, dict) else None
        )


# Shared by all nodes. Pydantic would copy a default that is a model for each node, and these copies
# would take most of the time that parsing a graph takes.
_DEFAULT_RETRY_POLICY = RetryPolicy()
_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_ROUTING = Routing()
_DEFAULT_IO = NodeIO()


class NodeSpec(DocumentPart):
    """A node of a graph."""

    node_id: NodeId
    type: Name
    """The role of the workers that run it, or ``coordinator_fn``."""
    depends_on: tuple[NodeId, ...] = ()
    fan_in: Annotated[str, Field(pattern=r"^(all|any|count:[1-9][0-9]{0,8})$")] = "all"
    """How many parents must end well before it starts: ``all``, ``any`` or ``count:n``."""
    on_satisfied: Literal["leave", "cancel"] = "leave"
    """What becomes of parents that still run when the fan-in is met."""
    retry_policy: RetryPolicy = Field(default_factory=lambda: _DEFAULT_RETRY_POLICY)
    on_batch_failure: Literal["fail", "skip"] = "fail"
    """What a batch that failed for good does to the node: it fails as well, or goes on without
    it.
    """
    timeouts: Timeouts = Field(default_factory=lambda: _DEFAULT_TIMEOUTS)
    routing: Routing = Field(default_factory=lambda: _DEFAULT_ROUTING)
    when: str | None = None
    """An expression over ``params``, ``vars``, ``results``, ``errors`` and ``task``; false skips
    the node.
    """
    io: NodeIO = Field(default_factory=lambda: _DEFAULT_IO)
    priority: Priority = 0
    concurrency_key: Name | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def need(self) -> int:
        """How many parents ``fan_in`` asks for; -1 stands for all of them."""
        if self.fan_in == "all":
            return -1
        return 1 if self.fan_in == "any" else int(self.fan_in.removeprefix("count:"))


class EdgeSpec(DocumentPart):
    """An edge: ``to`` waits for ``source`` (written ``from`` in documents), or, where it streams,
    for its first batch.
    """

    source: NodeId = Field(alias="from")
    to: NodeId
    mode: Literal["sync", "async"] | None = None
    """``async``: ``to`` may run beside ``source``. It stands for the trigger ``on_batch`` where
    none is given.
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
    """A whole graph, as it is submitted.

    After :meth:`flowkit.graph.Graph.parse` it is in one form: plain edges stand in ``depends_on``,
    streaming ones in ``edges``, and ``edges_ex`` is empty.
    """

    nodes: tuple[NodeSpec, ...]
    edges: tuple[AnyEdge, ...] = ()
    edges_ex: tuple[AnyEdge, ...] = ()
    on_node_failure: Literal["stop", "continue"] = "stop"
    deadline_sec: PositiveSeconds | None = None
    schema_version: Literal["1", "1.0"] = "1"
