"""Contradictions in JSON Schemas: keywords that together match no value."""

from collections.abc import Iterator
from typing import Any

from flowkit._json.values import Path, short
from flowkit.graph._schema_properties import LISTS, MAPS, SINGLE, Schema

RANGES = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
)
"""Keywords of which the first must not be above the second."""
OPEN_RANGES = (
    ("exclusiveMinimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
)
"""Keywords of which the first must be below the second."""
NEGATED = frozenset({"not"})
"""Keywords below which a schema may match no value."""


def contradictions(schema: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the places in a valid schema that match no value, each with the reason.

    They are mistakes that a reader sees in one schema. Other schemas may match no value, too.
    """
    if not isinstance(schema, dict):
        return
    for text in _own(schema):
        yield path, text
    for name, value in schema.items():
        if name in SINGLE - NEGATED:
            yield from contradictions(value, (*path, name))
        elif name in LISTS:
            for index, one in enumerate(value):
                yield from contradictions(one, (*path, name, index))
        elif name in MAPS:
            for key, one in value.items():
                yield from contradictions(one, (*path, name, key))


def _own(schema: Schema) -> Iterator[str]:
    if schema.get("enum") == []:
        yield "enum is empty, so that no value matches"
    for least, most in RANGES:
        if least in schema and most in schema and schema[least] > schema[most]:
            yield f"{least} {short(schema[least])} is above {most} {short(schema[most])}"
    for least, most in OPEN_RANGES:
        if least in schema and most in schema and schema[least] >= schema[most]:
            yield f"{least} {short(schema[least])} is not below {most} {short(schema[most])}"
    if any(one is False for one in schema.get("allOf", ())):
        yield "allOf contains false, so that no value matches"
    for name in ("anyOf", "oneOf"):
        if name in schema and all(one is False for one in schema[name]):
            yield f"{name} contains only false, so that no value matches"
    properties = schema.get("properties", {})
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    for name in schema.get("required", ()):
        if properties.get(name) is False:
            yield f"the required property {short(name)} has the schema false, so that none matches"
        elif closed and name not in properties:
            yield (
                f"the required property {short(name)} is not in properties, and"
                " additionalProperties is false"
            )
