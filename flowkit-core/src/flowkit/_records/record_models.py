"""Schemas of the parts of a record. Data that does not match was not written by FlowKit, or was
changed.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from flowkit._json.limits import Count, Moment, PositiveSeconds, Priority
from flowkit.task import (
    KeyClaim,
    LogEntry,
    NodeRecord,
    ParentNode,
    Publication,
    ScheduleOrigin,
    SignalBox,
    TaskFlow,
    TaskOutput,
    TaskStatus,
    TriggerOrigin,
)


@dataclass(slots=True)
class Trace:
    """Trace in which a task was submitted."""

    traceparent: str
    tracestate: str


@dataclass(slots=True)
class Head:
    """Submission of a task, without its graph."""

    v: Literal[1]
    created_at: Moment
    secret: str
    params: dict[str, Any]
    pipeline: str | None
    labels: dict[str, str]
    priority: Priority
    idempotency_key: str | None
    deadline_sec: PositiveSeconds | None
    trace: Trace | None = None
    defaulted: tuple[str, ...] = ()
    parent: ParentNode | None = None
    flow: TaskFlow | None = None
    rerun_of: str | None = None
    flow_versions: dict[str, Annotated[Count, Field(ge=1)]] = field(default_factory=dict)
    depth: Count = 0
    schedule: ScheduleOrigin | None = None
    trigger: TriggerOrigin | None = None
    chain: Count = 0


@dataclass(slots=True)
class State:
    """State of a task as a whole."""

    status: TaskStatus
    marks: str
    seq: Count
    outcome: TaskStatus | None
    paused: bool
    error: str | None
    reason: str | None
    started_at: Moment | None
    finished_at: Moment | None
    deadline_at: Moment | None
    output: TaskOutput | None = None
    maps: list[tuple[Count, Count, Annotated[Count, Field(ge=1)], str, bool]] = field(
        default_factory=list
    )
    """Children of maps: the map, their number, the items in a part, the hash of the items, and
    whether they belong to the current run of the map.
    """
    map_streams: list[tuple[Count, Count, Count, Count, Count, bool]] = field(default_factory=list)
    """Progress of maps that read artifacts: the map, and the fields of a ``MapStream``."""
    pauses: Count = 0
    forced: bool = False
    parent_attempt: Count = 0
    parent_pauses: Count = 0
    failed_codes: dict[str, Annotated[Count, Field(ge=1)]] = field(default_factory=dict)
    key: KeyClaim | None = None
    publication: Publication | None = None
    packed: list[tuple[Count, Count]] = field(default_factory=list)
    """First and last node of each row of nodes whose records are in packs of the archive."""


HEAD: TypeAdapter[Head] = TypeAdapter(Head)
STATE: TypeAdapter[State] = TypeAdapter(State)
NODE: TypeAdapter[NodeRecord] = TypeAdapter(NodeRecord)
LOG: TypeAdapter[list[LogEntry]] = TypeAdapter(list[LogEntry])
SIGNALS: TypeAdapter[SignalBox] = TypeAdapter(SignalBox)
VARS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
