"""Shapes of the documents: the allowed values of each field, in one table.

FlowKit checks documents by this table, and the server searches for damaged ones by it. A document
with the wrong shape was changed by another program, or is damaged. It does not affect the documents
that are read or written with it. Fields that are not in the table are ignored.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson.datetime_ms import DatetimeMS

from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT
from flowkit.protocols import LETTER_KINDS

SCHEMA_VERSION = 1
LARGEST_COUNT = 2**53
"""A larger count is damaged: FlowKit never reaches it, and adding to it would lose precision."""
PART_NAME = re.compile(r"[a-z][a-z0-9]*", re.ASCII)

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of value: in words, as a check in Python, and as MongoDB's JSON Schema."""

    words: str
    fits: Callable[[Any], bool]
    schema: Schema


def _is_text(value: Any) -> bool:
    """Return whether this is valid Unicode; bytes that are not UTF-8 are read as surrogates."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_text(value.get("blob"))
    return isinstance(value, bytes) or _is_text(value)


def whole(first: int, last: int = LARGEST_COUNT) -> Form:
    """Return the form of a whole number in a range."""

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and first <= value <= last

    return Form(
        f"a whole number from {first} to {last}",
        fits,
        {"bsonType": ["int", "long"], "minimum": first, "maximum": last},
    )


def either(one: Form, other: Form) -> Form:
    """Return the form of a value that has one of two forms."""
    return Form(
        f"{one.words}, or {other.words}",
        lambda value: one.fits(value) or other.fits(value),
        {"anyOf": [one.schema, other.schema]},
    )


def many(item: Form) -> Form:
    """Return the form of a list."""
    return Form(
        f"a list, each item {item.words}",
        lambda value: isinstance(value, list) and all(map(item.fits, value)),
        {"bsonType": "array", "items": item.schema},
    )


def fields(required: Mapping[str, Form]) -> Form:
    """Return the form of an object with these fields."""
    return Form(
        f"an object with {', '.join(required)}",
        lambda value: (
            isinstance(value, dict)
            and all(name in value and form.fits(value[name]) for name, form in required.items())
        ),
        {
            "bsonType": "object",
            "required": list(required),
            "properties": {name: form.schema for name, form in required.items()},
        },
    )


TEXT = Form("text", _is_text, {"bsonType": "string"})
FLAG = Form("true or false", lambda value: isinstance(value, bool), {"bsonType": "bool"})
NOTHING = Form("null", lambda value: value is None, {"bsonType": "null"})
BINARY = Form("binary data", lambda value: isinstance(value, bytes), {"bsonType": "binData"})
DATE = Form("a date", lambda value: isinstance(value, datetime | DatetimeMS), {"bsonType": "date"})
MOMENT = Form(
    "seconds since 1970, in the years 1 to 9999",
    lambda value: _is_number(value) and FIRST_MOMENT <= value <= LAST_MOMENT,
    {"bsonType": ["double", "int", "long"], "minimum": FIRST_MOMENT, "maximum": LAST_MOMENT},
)
VALUE = Form(
    "text, binary data or {blob: ID}",
    _is_value,
    {
        "anyOf": [
            {"bsonType": ["string", "binData"]},
            {
                "bsonType": "object",
                "required": ["blob"],
                "properties": {"blob": {"bsonType": "string"}},
            },
        ]
    },
)
PARTS = Form(
    "values by the names of parts",
    lambda value: (
        isinstance(value, dict)
        and all(PART_NAME.fullmatch(name) and _is_value(item) for name, item in value.items())
    ),
    {
        "bsonType": "object",
        "patternProperties": {f"^{PART_NAME.pattern}$": VALUE.schema},
        "additionalProperties": False,
    },
)
KIND = Form(
    "a kind of dead letter", lambda value: value in LETTER_KINDS, {"enum": list(LETTER_KINDS)}
)
COUNT, INDEX, INTEGER = whole(0), whole(1), whole(-(2**63), 2**63 - 1)
GENERATION = whole(-1)
"""Generation -1 is that of claims, which are stored like artifacts."""
TEXT_PAIRS = many(fields({"k": TEXT, "v": TEXT}))
HEADERS = many(fields({"k": either(TEXT, BINARY), "v": BINARY}))
OWN_VERSION = whole(1, SCHEMA_VERSION)


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a collection's documents; ``optional`` ones may be missing, but not null."""

    required: Mapping[str, Form]
    optional: Mapping[str, Form]

    def fault(self, document: Mapping[str, Any]) -> str | None:
        """Return the fault of a document, or None."""
        version = document.get("schema_version", SCHEMA_VERSION)
        if not OWN_VERSION.fits(version):
            return (
                f"document {document['_id']!r:.200} has schema version {version!r}; this FlowKit"
                f" knows {SCHEMA_VERSION}"
            )
        for name, form in self.required.items():
            if name not in document:
                return f"its document is not one that FlowKit wrote: field {name!r} is missing"
            if not form.fits(document[name]):
                return _unfitting(name, form, document[name])
        for name, form in self.optional.items():
            if name in document and not form.fits(document[name]):
                return _unfitting(name, form, document[name])
        return None

    def fitting(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the undamaged fields of a document."""
        forms = {**self.required, **self.optional}
        return {
            name: value
            for name, value in document.items()
            if name in forms and forms[name].fits(value)
        }

    @property
    def schema(self) -> Schema:
        """The shape as MongoDB's JSON Schema."""
        both = {**self.required, **self.optional}
        return {
            "required": list(self.required),
            "properties": {name: form.schema for name, form in both.items()},
        }


def _unfitting(name: str, form: Form, value: Any) -> str:
    # The text does not contain the value itself, which may be a user's.
    return (
        f"its document is not one that FlowKit wrote: field {name!r} must be {form.words}, but is"
        f" {type(value).__name__}{_detail(value)}"
    )


def _detail(value: Any) -> str:
    if isinstance(value, dict):
        wrong = [str(name) for name, item in value.items() if not _is_value(item)]
        return f" (wrong: {', '.join(wrong)[:100]})" if wrong else ""
    return f" {value!r}" if _is_number(value) else ""


TEXT_ID = {"$gte": ""}
"""Condition of ids that are text: the server compares only values of the same type."""

_VERSIONED = {"schema_version": OWN_VERSION}

SHAPES: Mapping[str, Shape] = {
    "tasks": Shape(
        {
            "_id": TEXT,
            "version": INDEX,
            "op_id": TEXT,
            "status": TEXT,
            "created_at": MOMENT,
            "spec": VALUE,
            "parts": PARTS,
        },
        {
            **_VERSIONED,
            "pipeline": TEXT,
            "labels": TEXT_PAIRS,
            "idempotency_key": TEXT,
            "wake_at": MOMENT,
            "finished_at": MOMENT,
            "recent": many(TEXT),
        },
    ),
    "archive": Shape(
        {"_id": fields({"task": TEXT, "name": TEXT}), "rank": COUNT, "data": VALUE}, _VERSIONED
    ),
    "artifacts": Shape(
        {
            "_id": TEXT,
            "task_id": TEXT,
            "node_id": TEXT,
            "generation": GENERATION,
            "uid": TEXT,
            "position": INDEX,
            "partial": FLAG,
            "meta": either(VALUE, NOTHING),
            "metrics": VALUE,
            "created_at": MOMENT,
            "order": TEXT,
            "put": TEXT,
        },
        _VERSIONED,
    ),
    "workers": Shape(
        {
            "_id": TEXT,
            "roles": many(TEXT),
            "beat": COUNT,
            "started_at": MOMENT,
            "info": TEXT_PAIRS,
            "renewed_at": DATE,
        },
        _VERSIONED,
    ),
    "dead_letters": Shape(
        {
            "_id": TEXT,
            "at": MOMENT,
            "kind": KIND,
            "reason_code": TEXT,
            "error": TEXT,
            "data": VALUE,
        },
        {
            **_VERSIONED,
            "task_id": TEXT,
            "node_id": TEXT,
            "uid": TEXT,
            "size": COUNT,
            "generation": COUNT,
            "attempt": COUNT,
            "topic": TEXT,
            "key": either(TEXT, BINARY),
            "partition": INTEGER,
            "position": INTEGER,
            "headers": HEADERS,
        },
    ),
    "purged": Shape({"_id": TEXT, "at": DATE}, {}),
    "blobs.files": Shape(
        {
            "_id": TEXT,
            "length": COUNT,
            "chunkSize": INDEX,
            "uploadDate": DATE,
            "filename": TEXT,
            "metadata": fields({"task_id": either(TEXT, NOTHING), "use": TEXT, "version": COUNT}),
        },
        {},
    ),
    "blobs.chunks": Shape({"files_id": TEXT, "n": COUNT, "data": BINARY}, {}),
}
