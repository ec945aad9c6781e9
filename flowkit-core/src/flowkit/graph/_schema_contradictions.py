"""Contradictions in JSON Schemas: keywords that together match no value."""

from collections.abc import Iterator
from typing import Any

from flowkit._json.values import Path, short
from flowkit.graph._schema_properties import Schema

NUMBERS = frozenset({"integer", "number"})
OBJECTS = frozenset({"object"})
RANGES = (
    ("minimum", "maximum", NUMBERS),
    ("minLength", "maxLength", frozenset({"string"})),
    ("minItems", "maxItems", frozenset({"array"})),
    ("minProperties", "maxProperties", OBJECTS),
)
"""Keywords of which the first must not be above the second, and the types that they limit."""
OPEN_RANGES = (
    ("exclusiveMinimum", "maximum"),
    ("minimum", "exclusiveMaximum"),
    ("exclusiveMinimum", "exclusiveMaximum"),
)
"""Keywords of which the first must be below the second."""

Kinds = frozenset[str] | None
"""Types that a value may have; None if any."""


def contradictions(schema: Any, kinds: Kinds, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the places in a valid schema because of which it matches no value of the types
    ``kinds``, each with the reason.

    A schema without such a place may match no value for another reason.
    """
    if not isinstance(schema, dict):
        return
    kinds = _narrowed(kinds, schema.get("type"))
    for text in _own(schema, kinds):
        yield path, text
    for index, one in enumerate(schema.get("allOf", ())):
        yield from contradictions(one, kinds, (*path, "allOf", index))
    for name in ("anyOf", "oneOf"):
        if name in schema and all(_never(one, kinds) for one in schema[name]):
            yield path, f"no value matches any schema in {name}"
    if kinds == OBJECTS:
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            yield from contradictions(properties.get(name), None, (*path, "properties", name))


def _narrowed(kinds: Kinds, given: Any) -> Kinds:
    if given is None:
        return kinds
    own = frozenset([given] if isinstance(given, str) else given)
    return own if kinds is None else kinds & own or own


def _never(schema: Any, kinds: Kinds) -> bool:
    return schema is False or any(True for _ in contradictions(schema, kinds))


def _own(schema: Schema, kinds: Kinds) -> Iterator[str]:
    if schema.get("enum") == []:
        yield "enum is empty, so that no value matches"
    if any(one is False for one in schema.get("allOf", ())):
        yield "allOf contains false, so that no value matches"
    if not kinds:
        return
    for least, most, limited in RANGES:
        if kinds <= limited and least in schema and most in schema and schema[least] > schema[most]:
            yield f"{least} {short(schema[least])} is above {most} {short(schema[most])}"
    for least, most in OPEN_RANGES:
        if (
            kinds <= NUMBERS
            and least in schema
            and most in schema
            and schema[least] >= schema[most]
        ):
            yield f"{least} {short(schema[least])} is not below {most} {short(schema[most])}"
    if kinds == OBJECTS:
        yield from _missing(schema)


def _missing(schema: Schema) -> Iterator[str]:
    """Yield why required properties cannot be there."""
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
