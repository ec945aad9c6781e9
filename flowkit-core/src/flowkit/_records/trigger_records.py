"""Triggers and their events, as keyed records of the store.

A trigger is one record under its id. A second record for each pipeline lists the triggers on the
ends of its tasks. Each end that a trigger is to handle is a record whose key begins with the id of
the trigger; it is deleted once the trigger's task is stored.

A trigger with a source of a plugin has no such records, because the source keeps its events. Its
own record is always due, so that coordinators find it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic_core import from_json, to_json

from flowkit._json.limits import Moment
from flowkit._records.record_parts import damage_of
from flowkit._triggers import Trigger, pipeline_of
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord

KIND = "trigger"
PIPELINE_KIND = "trigger_pipeline"
EVENT_KIND = "trigger_event"
MOST_OF_PIPELINE = 100
"""Triggers on the ends of one pipeline."""
MOST_READ = 500
"""Triggers with sources of plugins. Each coordinator has a connection for each of them."""
_NOT_IN_GROUP = re.compile(r"[^A-Za-z0-9._-]")
_ELSEWHERE = "stored"
"""Mark of a graph that is not in the fields of the trigger."""
_EVENT_DATA = b'{"v":1}'


@dataclass(frozen=True, slots=True)
class StoredTrigger:
    """A trigger as it is stored."""

    trigger: Trigger
    """The trigger. Its graph is replaced by a mark."""
    graph: bytes
    """JSON of the graph; empty if the trigger names a flow."""
    created_at: float
    token: str
    """Random text that tells the trigger apart from a deleted one with the same id."""
    since: float
    """Time of the first event that counts: when the trigger got its source."""
    paused: bool = False
    revision: str = ""

    @property
    def is_read(self) -> bool:
        """Whether coordinators read its events from a source of a plugin."""
        return pipeline_of(self.trigger.source) is None

    def group_in(self, namespace: str) -> str:
        """Return the name of the group in which coordinators share the events of its source.

        Another source, and another trigger with the same id, have another one.
        """
        name = _NOT_IN_GROUP.sub("_", self.trigger.id)[:100]
        return f"{namespace}.trigger.{name}.{self.token}.{round(self.since * 1000)}"

    @property
    def whole(self) -> Trigger:
        """The trigger with its graph, if it has one, as a dict."""
        if not self.graph:
            return self.trigger
        return self.trigger.model_copy(update={"graph": from_json(self.graph)})

    def with_pause(self, paused: bool) -> "StoredTrigger":
        """Return the trigger in a pause, or after it."""
        return replace(self, paused=paused)


@dataclass(frozen=True, slots=True)
class _Head:
    v: Literal[1]
    created_at: Moment
    token: str
    since: Moment
    paused: bool
    trigger: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _OfPipeline:
    v: Literal[1]
    triggers: Annotated[dict[str, str], Field(max_length=MOST_OF_PIPELINE)]


_HEAD: TypeAdapter[_Head] = TypeAdapter(_Head)
_OF_PIPELINE: TypeAdapter[_OfPipeline] = TypeAdapter(_OfPipeline)


# ---------------------------------------------------------------- triggers


def trigger_record(stored: StoredTrigger) -> KeyedRecord:
    """Return the record of a trigger, in place of the one with its revision."""
    fields = stored.trigger.model_dump(mode="json", exclude={"id", "graph"}, exclude_unset=True)
    head = _Head(1, stored.created_at, stored.token, stored.since, stored.paused, fields)
    data = _HEAD.dump_json(head) + b"\n" + stored.graph
    due_at = stored.since if stored.is_read else None
    return KeyedRecord(KIND, stored.trigger.id, data, stored.revision, due_at)


def decode_trigger(record: KeyedRecord) -> StoredTrigger:
    """Return the trigger in a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    if record.fault is not None:
        raise _corrupt(record.key, record.fault)
    line, _, graph = record.data.partition(b"\n")
    try:
        head = _HEAD.validate_json(line, strict=True)
        mark = {"graph": _ELSEWHERE} if graph else {}
        trigger = Trigger(**head.trigger, **mark, id=record.key)
    except (ValueError, TypeError) as error:
        raise _corrupt(record.key, damage_of(error)) from None
    return StoredTrigger(
        trigger, graph, head.created_at, head.token, head.since, head.paused, record.revision
    )


def _corrupt(trigger_id: str, why: str) -> CorruptRecord:
    return CorruptRecord(
        f"the record of trigger {trigger_id!r} is damaged: {why}; delete the trigger and put it"
        " again"
    )


# ---------------------------------------------------------------- pipelines


def pipeline_record(pipeline: str, triggers: Mapping[str, str], revision: str) -> KeyedRecord:
    """Return the record of the triggers on the ends of a pipeline, with their tokens."""
    data = to_json({"v": 1, "triggers": triggers})
    return KeyedRecord(PIPELINE_KIND, pipeline, data, revision)


def triggers_of(record: KeyedRecord) -> dict[str, str]:
    """Return the triggers on the ends of a pipeline, with their tokens.

    Raises:
        CorruptRecord: the record cannot be decoded.
    """
    try:
        if record.fault is not None:
            raise ValueError(record.fault)
        return _OF_PIPELINE.validate_json(record.data, strict=True).triggers
    except ValueError as error:
        raise CorruptRecord(
            f"the record of the triggers on pipeline {record.key!r} is damaged:"
            f" {damage_of(error)}; put one of its triggers again"
        ) from None


# ---------------------------------------------------------------- events


class EndEvent(NamedTuple):
    """End of a task that a trigger is to handle."""

    trigger_id: str
    token: str
    task_id: str
    seq: int
    """Number of the last change in the history of the task, as it ended."""

    @property
    def cause(self) -> str:
        """Text from which the id of the trigger's task follows."""
        return f"task/{self.task_id}/{self.seq}"

    def record(self, at: float) -> KeyedRecord:
        """Return the record of the event, which is deleted with the task that ended."""
        key = f"{prefix_of(self.trigger_id, self.token)}{self.task_id}\n{self.seq}"
        return KeyedRecord(EVENT_KIND, key, _EVENT_DATA, due_at=at, task_id=self.task_id)


def prefix_of(trigger_id: str, token: str | None = None) -> str:
    """Return the beginning of the keys of a trigger's events; without a ``token``, also of those of
    deleted triggers with the same id. No id contains a line break.
    """
    return f"{trigger_id}\n" if token is None else f"{trigger_id}\n{token}\n"


def event_of(record: KeyedRecord) -> EndEvent | None:
    """Return the event of a record; None if it is none."""
    match record.key.split("\n"):
        case [trigger_id, token, task_id, seq] if seq.isascii() and seq.isdigit():
            return EndEvent(trigger_id, token, task_id, int(seq))
    return None
