"""Lines of an export file.

An export is a text file in UTF-8. Each line is a JSON object with a ``type`` and, as its last
field, the CRC-32 of the text before that field. The first line is the header. Each task is followed
by its archived parts, its artifacts and its dead letters; its line says how many there are. Dead
letters without a task follow the tasks. The last line is the end, with the number of lines.

Later versions may add types of lines. Data is a JSON string if it is text in UTF-8, otherwise an
object ``{"base64": "..."}``.
"""

import re
from dataclasses import fields
from typing import Annotated, Any, Literal, Self
from zlib import crc32

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import from_json

from flowkit._json.byte_values import Data
from flowkit._records.letter_records import KIND as LETTER
from flowkit._records.letter_records import kind_and_task, task_of
from flowkit._text.validation_errors import message_of
from flowkit.errors import InvalidExport
from flowkit.protocols import (
    ArtifactRecord,
    KeyedRecord,
    Stream,
    TaskHeader,
    TaskRecord,
)

FORMAT = "flowkit-export"
VERSION = 1
CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}\r?\n?$')

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
    archived_parts: int
    artifacts: int
    dead_letters: int
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
    """Artifact of a node of a task. In generations below 0: the claim of an attempt, or the bounds
    of windows.
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


class EndLine(Line):
    """Last line, with the number of all lines."""

    type: Literal["end"] = "end"
    lines: int


AnyLine = TaskLine | ArchivedPartLine | ArtifactLine | DeadLetterLine | EndLine
_LINE: TypeAdapter[AnyLine] = TypeAdapter(Annotated[AnyLine, Field(discriminator="type")])


def encode_line(line: Line) -> bytes:
    """Return the text of a line, with its checksum."""
    text = line.model_dump_json().encode()[:-1]
    return b'%b,"crc32":"%08x"}\n' % (text, crc32(text))


def decode_line(text: bytes) -> AnyLine:
    """Return a line that is not the first one.

    Raises:
        ValueError: it is damaged, or of an unknown type.
    """
    body = _checked(text)
    try:
        return _LINE.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "union_tag_invalid":
            raise ValueError(
                f"records of the type {first['ctx']['tag']!r:.80} are unknown; a later version of"
                " FlowKit wrote them: upgrade flowkit-core"
            ) from None
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"the record is invalid: {place[:100]}: {message_of(first)[:200]}"
        ) from None


def decode_header(text: bytes) -> HeaderLine:
    """Return the first line of an export.

    Raises:
        InvalidExport: it is not the beginning of an export, or of another version.
    """
    try:
        values = from_json(text)
    except ValueError:
        values = None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InvalidExport("line 1: this is not a file that flowkit export wrote")
    if values.get("version") != VERSION:
        raise InvalidExport(
            f"line 1: the export has version {values.get('version')!r:.20} of the format, and this"
            f" FlowKit reads version {VERSION}; FlowKit {values.get('flowkit')!r:.40} wrote it"
        )
    try:
        return HeaderLine.model_validate_json(_checked(text))
    except ValueError:
        raise InvalidExport("line 1: the line is damaged") from None


def _checked(text: bytes) -> bytes:
    """Return a line without its checksum.

    Raises:
        ValueError: the checksum is missing or wrong.
    """
    found = CHECKSUM.search(text)
    if found is None:
        raise ValueError("the line is damaged or incomplete: it does not end with a checksum")
    body = text[: found.start()]
    if crc32(body) != int(found[1], 16):
        raise ValueError("the line is damaged: its checksum is wrong")
    return body + b"}"
