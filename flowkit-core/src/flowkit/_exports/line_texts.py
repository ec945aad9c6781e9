"""Texts of the lines of an export file, each with a checksum as its last field."""

import re
from typing import Annotated
from zlib import crc32

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from flowkit._exports.lines import AnyLine, HeaderLine, Line
from flowkit._text.validation_errors import message_of
from flowkit.errors import InvalidExport

FORMAT = "flowkit-export"
VERSION = 1
CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}\r?\n?$')

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
