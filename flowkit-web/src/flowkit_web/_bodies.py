"""Bodies and queries of requests."""

from collections import Counter
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    field_validator,
)

from flowkit import NodeView, TaskView
from flowkit.adapters import read_time
from flowkit.task import (
    NodeAction,
    NodesShown,
    ResolvedAs,
    TaskAction,
    TaskStatus,
    WaitingFor,
)
from flowkit_web._tokens import Role

MOST_ON_A_PAGE = 200
MOST_EVENTS = 10_000
"""Most events of a page."""
MOST_BATCHES = 10_000
"""Most batches whose times are returned."""

JsonObject = dict[str, JsonValue]
Limit = Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE, description="Most items of the page.")]
After = Annotated[str | None, Query(description="The `next` of the page before.")]


def _read_time(value: Any) -> datetime:
    """Return a time. pydantic itself would also read a number as seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("must be a string with a time, such as 2026-11-27T10:00:00Z")
    return read_time(value)


def _check_time(text: str) -> str:
    read_time(text)
    return text


Time = Annotated[AwareDatetime, BeforeValidator(_read_time)]
"""Time in ISO 8601; UTC if it has no zone."""
TimeInSomeZone = Annotated[
    str, AfterValidator(_check_time), Field(json_schema_extra={"format": "date-time"})
]
"""Text of a time in ISO 8601, whose zone follows from something else if it has none."""


class Body(BaseModel):
    """Body of a request. An unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Created(BaseModel):
    """Id of a new task."""

    id: str


class Me(BaseModel):
    """Caller of this request: the name of the token, and its role."""

    name: str
    role: Role


# ---------------------------------------------------------------- tasks


class NewTask(Body):
    """Submission of a task: the keywords of ``create_task``."""

    params: JsonObject | None = None
    graph: JsonObject | None = None
    flow: str | None = None
    version: int | None = None
    pipeline: str | None = None
    task_id: str | None = None
    idempotency_key: str | None = None
    labels: dict[str, str] | None = None
    priority: int = 0
    deadline_sec: float | None = None


class Outline(BaseModel):
    """Nodes of a task's graph in brief."""

    seq: int
    """`seq` of the last event of the task."""
    nodes: list[JsonObject]
    """Nodes in the order of the graph. Fields with their defaults are left out."""


_NODES = TypeAdapter(list[NodeView])
_NOT_BRIEF = {"__all__": {"result", "metrics", "labels"}}


def outline_of(view: TaskView) -> Outline:
    """Return the nodes of a view in brief. One call for all of them is several times faster."""
    nodes = list(view.nodes.values())
    brief = _NODES.dump_python(nodes, mode="json", exclude_defaults=True, exclude=_NOT_BRIEF)
    return Outline.model_construct(seq=view.seq, nodes=brief)


class BatchTimes(BaseModel):
    """Times at which batches were stored."""

    times: dict[str, list[datetime]]
    """Times by node, in order of production."""
    complete: bool
    """Whether these are all batches: there are at most 10,000 of them."""


class Cancellation(Body):
    """Cancellation of a task."""

    reason: str = ""
    force: bool = False


class Retry(Body):
    """Retry of a task."""

    from_nodes: list[str] | None = None


class NewSignal(Body):
    """Signal to a task."""

    name: str
    payload: JsonValue = None
    signal_id: str | None = None


class Rerun(Body):
    """New task from an old one."""

    params: JsonObject | None = None
    flow_version: int | None = None
    idempotency_key: str | None = None


class Resolution(Body):
    """Outcome that an operator chooses for a node."""

    outcome: ResolvedAs
    result: JsonValue = None
    reason: str = ""


class Decision(Body):
    """Decision about an approval. The name of the token is the name of the person."""

    choice: str
    values: JsonObject | None = None
    comment: str | None = None


def _check_true(value: bool | None) -> bool | None:
    if value is False:
        raise ValueError("must be true or left out")
    return value


OnlyTrue = Annotated[bool | None, AfterValidator(_check_true)]


class Filters(BaseModel):
    """Filters of ``list_tasks`` that queries and bodies have in common."""

    model_config = ConfigDict(extra="forbid")

    status: list[TaskStatus] | None = None
    pipeline: str | None = None
    parent: str | None = None
    root: OnlyTrue = None
    created_after: Time | None = None
    created_before: Time | None = None
    retrying: OnlyTrue = None
    waiting: WaitingFor | None = None
    reason_code: str | None = None


def _check_label(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not key or not equals:
        raise ValueError("must have the form KEY=VALUE")
    return text


Label = Annotated[
    str, AfterValidator(_check_label), Field(json_schema_extra={"pattern": "^[^=]+="})
]


class TasksQuery(Filters):
    """Query of a list of tasks: the keywords of ``list_tasks``."""

    labels: list[Label] | None = Field(
        None, description="`KEY=VALUE`; may be repeated with other keys."
    )
    limit: int = Field(50, ge=1, le=MOST_ON_A_PAGE)
    after: str | None = None
    nodes: NodesShown = Field("all", description="Nodes that the views have.")

    @field_validator("labels")
    @classmethod
    def _have_different_keys(cls, labels: list[str] | None) -> list[str] | None:
        keys = Counter(label.partition("=")[0] for label in labels or ())
        for key, count in keys.items():
            if count > 1:
                raise ValueError(f"the label {key!r} is given {count} times")
        return labels

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of ``list_tasks``."""
        pairs = (label.partition("=") for label in self.labels or ())
        return {**dict(self), "labels": {key: value for key, _, value in pairs}}


class TasksFilter(Filters):
    """Filter of the tasks that a request changes. At least one field is given."""

    labels: dict[str, str] | None = None


class TasksCancellation(TasksFilter):
    """Cancellation of all tasks that match."""

    reason: str = ""
    force: bool = False


class BulkResult(BaseModel):
    """Outcome of a change of many tasks."""

    found: int
    changed: int
    refused: dict[str, str]
    """Reasons why tasks could not be changed, by id."""


# ---------------------------------------------------------------- flows, schedules, letters


class NewFlow(Body):
    """Registration of a flow."""

    name: str
    graph: JsonObject
    description: str = ""


class Span(Body):
    """Span of nominal times to make tasks for. Times without a zone are in that of the schedule."""

    start: TimeInSomeZone
    end: TimeInSomeZone
    limit: int = Field(10, ge=1, le=1_000)


class NextTimes(BaseModel):
    """Nominal times of a schedule that come next."""

    times: list[datetime]


class TaskActions(BaseModel):
    """Actions that the state of a task allows."""

    actions: tuple[TaskAction, ...]


class NodeActions(BaseModel):
    """Actions that the state of a node allows."""

    actions: tuple[NodeAction, ...]


class LetterIds(Body):
    """Ids of dead letters."""

    letter_ids: list[str] = Field(min_length=1, max_length=500)


class Letter(BaseModel):
    """Dead letter. ``data`` is JSON; data that is not JSON is base64 in ``data_base64``.

    A letter with a ``fault`` has no time.
    """

    letter_id: str
    at: Time | None
    kind: str
    reason_code: str
    error: str
    task_id: str | None
    node_id: str | None
    uid: str | None
    size: int
    generation: int
    attempt: int
    topic: str | None
    key: str
    partition: int | None
    position: int | None
    headers: dict[str, str]
    trigger: str | None
    webhook: str | None
    fault: str | None
    data: JsonValue = None
    data_base64: str | None = None


class RetriedLetter(BaseModel):
    """Outcome of the retry of a dead letter."""

    letter_id: str
    retried: bool
    detail: str
