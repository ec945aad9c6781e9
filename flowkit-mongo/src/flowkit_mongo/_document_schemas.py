"""Shapes of the documents: the allowed values of each field, in one table.

FlowKit checks documents by this table, and the server searches for damaged ones by it. A document
with the wrong shape was changed by another program, or is damaged. It does not affect the documents
that are read or written with it. Fields that are not in the table are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowkit_mongo._value_forms import (
    BINARY,
    COUNT,
    DATE,
    FLAG,
    GENERATION,
    INDEX,
    MOMENT,
    NOTHING,
    PARTS,
    TEXT,
    TEXT_PAIRS,
    VALUE,
    Form,
    Schema,
    either,
    fields,
    is_number,
    is_value,
    many,
    whole,
)

SCHEMA_VERSION = 2
OWN_VERSION = whole(SCHEMA_VERSION, SCHEMA_VERSION)


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
        wrong = [str(name) for name, item in value.items() if not is_value(item)]
        return f" (wrong: {', '.join(wrong)[:100]})" if wrong else ""
    return f" {value!r}" if is_number(value) else ""


TEXT_ID = {"$gte": ""}
"""Condition of ids that are text: the server compares only values of the same type."""

_VERSIONED = {"schema_version": OWN_VERSION}


def _all(names: str, form: Form) -> dict[str, Form]:
    """Return fields that have the same form."""
    return dict.fromkeys(names.split(), form)


_ARCHIVE_ID = fields(_all("task name", TEXT))
_RECORD_ID = fields(_all("kind key", TEXT))
_NEXT = fields(
    _all("change revision", TEXT)
    | {"data": either(TEXT, BINARY)}
    | {"due_at": either(MOMENT, NOTHING), "task_id": either(TEXT, NOTHING)}
)
_FILE_METADATA = fields({"task_id": TEXT, "use": TEXT, "version": COUNT})

SHAPES: Mapping[str, Shape] = {
    "tasks": Shape(
        {"_id": TEXT, "version": INDEX}
        | _all("op_id status", TEXT)
        | {"created_at": MOMENT, "spec": VALUE, "parts": PARTS},
        _VERSIONED
        | {"pipeline": TEXT, "labels": TEXT_PAIRS, "idempotency_key": TEXT}
        | _all("wake_at finished_at", MOMENT)
        | _all("tags recent", many(TEXT)),
    ),
    "archive": Shape({"_id": _ARCHIVE_ID, "rank": COUNT, "data": VALUE}, _VERSIONED),
    "artifacts": Shape(
        _all("_id task_id node_id", TEXT)
        | {"generation": GENERATION, "uid": TEXT, "position": INDEX, "partial": FLAG}
        | {"meta": either(VALUE, NOTHING), "metrics": VALUE, "created_at": MOMENT}
        | _all("order put", TEXT),
        _VERSIONED,
    ),
    "records": Shape(
        {"_id": _RECORD_ID, "revision": TEXT, "data": either(TEXT, BINARY)},
        _VERSIONED | {"due_at": MOMENT, "task_id": TEXT, "next": _NEXT, "gone": TEXT},
    ),
    "record_changes": Shape(
        {"_id": TEXT, "at": DATE, "records": many(_RECORD_ID)}, _VERSIONED | {"committed": FLAG}
    ),
    "purged": Shape({"_id": TEXT, "at": DATE}, {}),
    "blobs.files": Shape(
        {"_id": TEXT, "length": COUNT, "chunkSize": INDEX, "uploadDate": DATE}
        | {"filename": TEXT, "metadata": _FILE_METADATA},
        {},
    ),
    "blobs.chunks": Shape({"files_id": TEXT, "n": COUNT, "data": BINARY}, {}),
}
"""In the order in which the fields are checked: a document's fault is the first that is found."""
