"""Lines of an export file.

An export is a text file in UTF-8. Each line is a JSON object with a ``type`` and, as its last
field, the CRC-32 of the text before that field. The first line is the header. Each task is followed
by its archived parts, its artifacts and its dead letters; its line says how many there are. Dead
letters without a task follow the tasks. The last line is the end, with the number of lines.

Later versions may add types of lines. Data is a JSON string if it is text in UTF-8, otherwise an
object ``{"base64": "..."}``.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import fields
from typing import Annotated, Any, Literal, Self
from zlib import crc32

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import from_json

from flowkit.errors import InvalidExport
from flowkit.protocols import (
    ArtifactRecord,
    DeadLetter,
    LetterKind,
    Stream,
    TaskHeader,
    TaskRecord,
)

FORMAT = "flowkit-export"
VERSION = 1
CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}\r?\n?$')


def _data(value: Any) -> bytes:
    """Return data from its JSON."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        return b64decode(value["base64"], validate=True)
    if isinstance(value, bytes):
        return value
    raise ValueError('expected a string or {"base64": "..."}')


def _data_json(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _text(value: Any) -> str:
    """Return a text from its JSON. Messages of other programs may have texts that are not valid
    Unicode.
    """
    if isinstance(value, str):
        return value
    return _data(value).decode("utf-8", "surrogatepass")


def _text_json(text: str) -> str | dict[str, str]:
    return _data_json(text.encode("utf-8", "surrogatepass"))


Data = Annotated[bytes, PlainValidator(_data), PlainSerializer(_data_json)]
Tags = Annotated[frozenset[str], PlainSerializer(sorted)]
Text = Annotated[str, PlainValidator(_text), PlainSerializer(_text_json)]


def _names(kind: type[Any], *others: str) -> list[str]:
    """Return the names of the fields of a record that a line has under the same name."""
    return [item.name for item in fields(kind) if item.name not in others]


# A record that has a ``fault`` is not exported.
HEADER_FIELDS = _names(TaskHeader)
RECORD_FIELDS = _names(TaskRecord, "header", "fault")
STREAM_FIELDS = _names(Stream)
ARTIFACT_FIELDS = _names(ArtifactRecord, "stream")
LETTER_FIELDS = _names(DeadLetter, "fault")


def _values(source: Any, names: list[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


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
    """Dead letter of a task, or of none."""

    type: Literal["dead_letter"] = "dead_letter"
    letter_id: str
    at: float
    kind: LetterKind
    reason_code: str
    error: Text
    task_id: Text | None
    node_id: Text | None
    uid: Text | None
    data: Data
    size: int
    generation: int
    attempt: int
    topic: Text | None
    key: Text
    partition: int | None
    position: int | None
    headers: list[tuple[Text, Data]]

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """Return the line of a dead letter."""
        values = _values(letter, LETTER_FIELDS)
        return cls(**values | {"headers": list(letter.headers.items())})

    def letter(self) -> DeadLetter:
        """Return the dead letter of the line."""
        values = _values(self, LETTER_FIELDS)
        return DeadLetter(**values | {"headers": dict(self.headers)})


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
        raise ValueError(f"the record is invalid: {place[:100]}: {first['msg'][:200]}") from None


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
