"""Lines of an export file.

An export is a text file in UTF-8. Each line is a JSON object with a ``type`` and, as its last
field, the CRC-32 of the text before that field. The first line is the header. Each task is followed
by its archived parts, its artifacts and its dead letters; its line says how many there are. Dead
letters without a task follow the tasks, then registered flows, then schedules and triggers, which
may name the flows. A trigger follows its events. The last line is the end, with the number of
lines.

Later versions may add types of lines. Data is a JSON string if it is text in UTF-8, otherwise an
object ``{"base64": "..."}``.
"""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from flowkit._json.byte_values import Data
from flowkit._json.limits import Count, Moment
from flowkit._records.flow_records import VERSIONS as FLOW_VERSION
from flowkit._records.flow_records import Number, name_and_number, version_key
from flowkit._records.letter_records import KIND as LETTER
from flowkit._records.letter_records import kind_and_task, task_of
from flowkit._records.schedule_records import DEFINITION_KIND
from flowkit._records.schedule_records import KIND as SCHEDULE
from flowkit._records.trigger_records import KIND as TRIGGER
from flowkit._records.trigger_records import EndEvent
from flowkit.protocols import (
    ArtifactRecord,
    KeyedRecord,
    Stream,
    TaskHeader,
    TaskRecord,
)

PartOfKey = Annotated[str, Field(pattern=r"\A[^\n]*\z")]
Tags = Annotated[frozenset[str], PlainSerializer(sorted)]


def _names(kind: type[Any], *others: str) -> list[str]:
    """Return the names of the fields of a record that a line has under the same name."""
    return [item.name for item in fields(kind) if item.name not in others]


# A record that has a ``fault`` is not exported.
HEADER_FIELDS = _names(TaskHeader)
RECORD_FIELDS = _names(TaskRecord, "header", "fault")
STREAM_FIELDS = _names(Stream)
ARTIFACT_FIELDS = _names(ArtifactRecord, "stream")


def _values(source: Any, names: list[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _letter_id(name: str) -> str:
    if kind_and_task(name) is None:
        raise ValueError("it is not the id of a dead letter")
    return name


class Line(BaseModel):
    """Line of an export."""

    model_config = ConfigDict(extra="forbid", strict=True)


class HeaderLine(Line):
    """First line. ``encoded`` says that a plugin encoded the data of users."""

    type: Literal["header"] = "header"
    format: Literal["flowkit-export"] = "flowkit-export"
    version: Literal[1] = 1
    flowkit: str
    encoded: bool


class TaskLine(Line):
    """Record of a task, and the numbers of lines that belong to it."""

    type: Literal["task"] = "task"
    task_id: str
    status: str
    created_at: float
    pipeline: str | None
    labels: dict[str, str]
    idempotency_key: str | None
    wake_at: float | None
    finished_at: float
    tags: Tags
    version: int
    op_id: str
    archived_parts: Count
    artifacts: Count
    dead_letters: Count
    spec: Data
    parts: dict[str, Data] = Field(min_length=1)

    @classmethod
    def of(
        cls, record: TaskRecord, *, archived_parts: int, artifacts: int, dead_letters: int
    ) -> Self:
        """Return the line of a record."""
        return cls(
            **_values(record.header, HEADER_FIELDS),
            **_values(record, RECORD_FIELDS),
            archived_parts=archived_parts,
            artifacts=artifacts,
            dead_letters=dead_letters,
        )

    def record(self) -> TaskRecord:
        """Return the record of the line."""
        header = TaskHeader(**_values(self, HEADER_FIELDS))
        return TaskRecord(header, **_values(self, RECORD_FIELDS))


class ArchivedPartLine(Line):
    """Archived part of a task."""

    type: Literal["archived_part"] = "archived_part"
    task_id: str
    name: str
    data: Data


class ArtifactLine(Line):
    """Artifact of a node of a task. Those of a short run may be in the record of the task instead,
    and have no lines. In generations below 0: the claim of an attempt, or the bounds of windows.
    """

    type: Literal["artifact"] = "artifact"
    task_id: str
    node_id: str
    generation: int
    position: int
    uid: str
    partial: bool
    created_at: float
    meta: Data | None
    metrics: Data

    @classmethod
    def of(cls, record: ArtifactRecord) -> Self:
        """Return the line of an artifact."""
        return cls(**_values(record.stream, STREAM_FIELDS), **_values(record, ARTIFACT_FIELDS))

    def record(self) -> ArtifactRecord:
        """Return the artifact of the line."""
        stream = Stream(**_values(self, STREAM_FIELDS))
        return ArtifactRecord(stream, **_values(self, ARTIFACT_FIELDS))


class DeadLetterLine(Line):
    """Dead letter of a task, or of none. Its id begins with its kind and the id of the task."""

    type: Literal["dead_letter"] = "dead_letter"
    letter_id: Annotated[str, AfterValidator(_letter_id)]
    data: Data

    @property
    def task_id(self) -> str | None:
        """Task that the letter is about."""
        return task_of(self.letter_id)

    @classmethod
    def of(cls, record: KeyedRecord) -> Self:
        """Return the line of the record of a dead letter."""
        return cls(letter_id=record.key, data=record.data)

    def record(self) -> KeyedRecord:
        """Return the record of the line."""
        return KeyedRecord(LETTER, self.letter_id, self.data)


class FlowVersionLine(Line):
    """Version of a registered flow. The versions of a flow are in order."""

    type: Literal["flow_version"] = "flow_version"
    name: str
    version: Number
    data: Data

    @classmethod
    def of(cls, record: KeyedRecord) -> Self:
        """Return the line of the record of a version."""
        name, number = name_and_number(record.key)
        return cls(name=name, version=number, data=record.data)

    def record(self) -> KeyedRecord:
        """Return the record of the line."""
        return KeyedRecord(FLOW_VERSION, version_key(self.name, self.version), self.data)


class ScheduleLine(Line):
    """Schedule: its definition, its state, and the time when it is to be advanced."""

    type: Literal["schedule"] = "schedule"
    schedule_id: str
    due_at: Moment | None
    definition: Data
    state: Data

    @classmethod
    def of(cls, definition: KeyedRecord, state: KeyedRecord) -> Self:
        """Return the line of the two records of a schedule."""
        return cls(
            schedule_id=state.key,
            due_at=state.due_at,
            definition=definition.data,
            state=state.data,
        )

    def records(self) -> tuple[KeyedRecord, KeyedRecord]:
        """Return the records of the definition and of the state."""
        return (
            KeyedRecord(DEFINITION_KIND, self.schedule_id, self.definition),
            KeyedRecord(SCHEDULE, self.schedule_id, self.state, due_at=self.due_at),
        )


class TriggerEventLine(Line):
    """End of a task that a trigger has not handled yet."""

    type: Literal["trigger_event"] = "trigger_event"
    trigger_id: PartOfKey
    token: PartOfKey
    task_id: PartOfKey
    seq: Count

    @classmethod
    def of(cls, event: EndEvent) -> Self:
        """Return the line of an event."""
        return cls(**event._asdict())

    def event(self) -> EndEvent:
        """Return the event of the line."""
        return EndEvent(**_values(self, list(EndEvent._fields)))


class TriggerLine(Line):
    """Trigger: its definition, its pause, and the token in its events."""

    type: Literal["trigger"] = "trigger"
    trigger_id: str
    data: Data

    @classmethod
    def of(cls, record: KeyedRecord) -> Self:
        """Return the line of the record of a trigger."""
        return cls(trigger_id=record.key, data=record.data)

    def record(self) -> KeyedRecord:
        """Return the record of the line."""
        return KeyedRecord(TRIGGER, self.trigger_id, self.data)


class EndLine(Line):
    """Last line, with the number of all lines."""

    type: Literal["end"] = "end"
    lines: int


AnyLine = (
    TaskLine
    | ArchivedPartLine
    | ArtifactLine
    | DeadLetterLine
    | FlowVersionLine
    | ScheduleLine
    | TriggerEventLine
    | TriggerLine
    | EndLine
)
