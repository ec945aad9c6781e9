"""Structure of a JSON Schema: its subschemas, and the properties of objects with their defaults."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]
REFERENCE = "#/$defs/"
MAX_REFERENCES = 100
"""Maximum length of a chain of references."""
SINGLE = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords whose value is a schema."""
LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAPS = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})


def definition_name(reference: Any) -> str:
    """Return the name of the definition to which a ``$ref`` leads."""
    name = str(reference).removeprefix(REFERENCE)
    return unquote(name).replace("~1", "/").replace("~0", "~")


def subschemas(schema: Schema) -> Iterator[Any]:
    """Yield the subschemas of a schema."""
    for name, value in schema.items():
        if name in SINGLE:
            yield value
        elif name in LISTS and isinstance(value, list):
            yield from value
        elif name in MAPS and isinstance(value, dict):
            yield from value.values()


def default_properties(root: Schema) -> dict[str, Any]:
    """Return the defaults of the top-level properties of a schema. A default beside a ``$ref`` has
    precedence over that of the definition.
    """
    found: dict[str, Any] = {}
    for name, below in _properties(root).items():
        for schema in _with_definitions(root, below):
            if "default" in schema:
                found[name] = schema["default"]
                break
    return found


def nested_defaults(root: Schema) -> Iterator[str]:
    """Yield the places of the defaults below the top-level properties. They are not filled in."""
    for name, below in _properties(root).items():
        yield from _defaults_below(root, below, f"params.{name}")


def can_have(root: Schema, schema: Any, name: str) -> bool:
    """Return whether a valid object may have a property of this name."""
    return not any(
        one.get("additionalProperties") is False
        and name not in _properties(one)
        and not one.get("patternProperties")
        for one in _with_definitions(root, schema)
    )


def property_names(root: Schema, schema: Any) -> list[str]:
    """Return the names of the properties that a schema declares."""
    return list(
        dict.fromkeys(name for one in _with_definitions(root, schema) for name in _properties(one))
    )


def property_schema(root: Schema, schema: Any, name: str) -> Any:
    """Return the schema of a property; None if it is not declared."""
    for one in _with_definitions(root, schema):
        if name in _properties(one):
            return _properties(one)[name]
    return None


def _properties(schema: Schema) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _with_definitions(root: Schema, schema: Any) -> Iterator[Schema]:
    """Yield a schema and the definitions to which its ``$ref`` leads."""
    definitions = root.get("$defs")
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict):
            return
        yield schema
        if "$ref" not in schema or not isinstance(definitions, dict):
            return
        schema = definitions.get(definition_name(schema["$ref"]))


def _defaults_below(root: Schema, schema: Any, place: str, depth: int = 0) -> Iterator[str]:
    for one in _with_definitions(root, schema):
        for name, below in _properties(one).items():
            where = f"{place}.{name}"
            if isinstance(below, dict) and "default" in below:
                yield where
            if depth < MAX_REFERENCES:
                yield from _defaults_below(root, below, where, depth + 1)
