"""The lines of an export carry each field of a record, and show damage."""

from dataclasses import MISSING, fields
from typing import Any

import pytest

from flowkit._exports.line_texts import decode_header, decode_line, encode_line
from flowkit._exports.lines import ArtifactLine, DeadLetterLine, EndLine, HeaderLine, TaskLine
from flowkit._records.letter_records import letter_of, letter_record
from flowkit.errors import InvalidExport
from flowkit.protocols import ArtifactRecord, Stream, TaskHeader, TaskRecord
from flowkit.task import DeadLetter

RECORD = TaskRecord(
    TaskHeader(
        "t/1 é",
        status="failed",
        created_at=0.1 + 0.2,
        pipeline="p",
        labels={"a.b": "ü"},
        idempotency_key="key",
        wake_at=3.25,
        finished_at=1.7e9,
        tags=frozenset({"reason:ü", "retrying", "a"}),
    ),
    b'{"v":1}\n{"nodes":[]}',
    {"state": b"{}", "n1": b"\xff\x00\x80", "n2": b""},
    version=7,
    op_id="op",
)
ARTIFACT = ArtifactRecord(Stream("t", "n/é", 2), "uid", True, b"\xff", b'{"a":1}', 1.5e9, 9)
LETTER = DeadLetter(
    "batch-t-1",
    1.5e9,
    "batch",
    "bad_input",
    "odd \udcff",
    task_id="t",
    node_id="n",
    uid="u",
    data=b"\xfe",
    size=12,
    generation=1,
    attempt=3,
    topic="topic",
    key="\udcfe",
    partition=4,
    position=2**63 - 1,
    headers={"\udcfd": b"\x00", "b": b"\xff", "a": b""},
    trigger="t",
    webhook="w",
)


def without_fault(record: Any) -> set[str]:
    return {item.name for item in fields(record) if item.name != "fault"}


@pytest.mark.parametrize("record", [RECORD, RECORD.header, ARTIFACT, LETTER], ids=type)
def test_the_records_of_these_tests_have_a_value_in_each_field(record: Any) -> None:
    """Fails for a new field, until the record has a value in it. The other tests then fail, until
    exports contain it.
    """
    defaults = {
        item.name: item.default_factory() if callable(item.default_factory) else item.default
        for item in fields(record)
        if item.name in without_fault(record)
        and (item.default is not MISSING or item.default_factory is not MISSING)
    }
    assert [name for name, value in defaults.items() if getattr(record, name) == value] == []


def test_a_task_is_the_same_after_its_export() -> None:
    line = TaskLine.of(RECORD, archived_parts=1, artifacts=2, dead_letters=3)
    assert decode_line(encode_line(line)) == line
    assert line.record() == RECORD
    assert without_fault(RECORD) | without_fault(RECORD.header) == (
        (set(TaskLine.model_fields) | {"header"})
        - {"type", "archived_parts", "artifacts", "dead_letters"}
    )


@pytest.mark.parametrize("name", ["archived_parts", "artifacts", "dead_letters"])
def test_a_negative_number_of_records_is_invalid(name: str) -> None:
    line = TaskLine.of(RECORD, archived_parts=1, artifacts=2, dead_letters=3)
    with pytest.raises(ValueError, match=f"the record is invalid: task.{name}: .*greater than"):
        decode_line(encode_line(line.model_copy(update={name: -1})))


def test_an_artifact_is_the_same_after_its_export() -> None:
    line = decode_line(encode_line(ArtifactLine.of(ARTIFACT)))
    assert isinstance(line, ArtifactLine)
    assert line.record() == ARTIFACT


def test_a_dead_letter_is_the_same_after_its_export() -> None:
    line = decode_line(encode_line(DeadLetterLine.of(letter_record(LETTER))))
    assert isinstance(line, DeadLetterLine)
    assert letter_of(line.record()) == LETTER


def test_text_is_readable_in_an_export() -> None:
    line = encode_line(TaskLine.of(RECORD, archived_parts=0, artifacts=0, dead_letters=0))
    assert b'"spec":"{\\"v\\":1}\\n{\\"nodes\\":[]}"' in line
    assert b'"n1":{"base64":"/wCA"}' in line


def test_each_changed_and_each_missing_byte_of_a_line_is_found() -> None:
    line = encode_line(ArtifactLine.of(ARTIFACT)).rstrip(b"\n")
    damaged = [line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :] for at in range(len(line))]
    damaged += [line[:at] for at in range(len(line))]
    for text in damaged:
        with pytest.raises(ValueError, match="damaged|invalid"):
            decode_line(text)


def test_a_line_that_an_editor_ended_with_a_carriage_return_is_read() -> None:
    line = EndLine(lines=3)
    assert decode_line(encode_line(line).rstrip(b"\n") + b"\r\n") == line


def test_records_of_a_later_version_are_named() -> None:
    line = encode_line(EndLine.model_construct(type="later", lines=1))
    with pytest.raises(ValueError, match="records of the type 'later' are unknown.*upgrade"):
        decode_line(line)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"", "not a file that flowkit export wrote"),
        (b"SQLite format 3\x00", "not a file that flowkit export wrote"),
        (b'{"format":"other"}\n', "not a file that flowkit export wrote"),
        (
            b'{"type":"header","format":"flowkit-export","version":2,"flowkit":"9.1"}\n',
            "version 2 of the format, and this FlowKit reads version 1; FlowKit '9.1' wrote it",
        ),
        (
            encode_line(HeaderLine(flowkit="1", encoded=False)).replace(b"false", b"true"),
            "line 1: the line is damaged",
        ),
    ],
)
def test_a_wrong_first_line_is_named(first: bytes, message: str) -> None:
    with pytest.raises(InvalidExport, match=message):
        decode_header(first)
