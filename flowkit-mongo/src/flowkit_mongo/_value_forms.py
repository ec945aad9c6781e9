"""Forms of the values in documents: in words, as a check in Python, and for the server."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson.datetime_ms import DatetimeMS

from flowkit.adapters import FIRST_MOMENT, LAST_MOMENT, is_unicode

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
    return isinstance(value, str) and is_unicode(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_value(value: Any) -> bool:
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
    lambda value: is_number(value) and FIRST_MOMENT <= value <= LAST_MOMENT,
    {"bsonType": ["double", "int", "long"], "minimum": FIRST_MOMENT, "maximum": LAST_MOMENT},
)
VALUE = Form(
    "text, binary data or {blob: ID}",
    is_value,
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
        and all(PART_NAME.fullmatch(name) and is_value(item) for name, item in value.items())
    ),
    {
        "bsonType": "object",
        "patternProperties": {f"^{PART_NAME.pattern}$": VALUE.schema},
        "additionalProperties": False,
    },
)
COUNT, INDEX = whole(0), whole(1)
GENERATION = whole(-LARGEST_COUNT)
"""Generations below 0 are those of claims and windows, which are stored like artifacts."""
TEXT_PAIRS = many(fields({"k": TEXT, "v": TEXT}))
