"""JSON Schemas in graphs: checks of the schemas, and of params and other values against them.

The draft is 2020-12. The size of a schema and the work of a check are bounded: references lead to
the schema's own ``$defs`` and never in a cycle, nothing is fetched, and patterns are matched in
linear time.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._json.values import Path, place, short
from flowkit.graph._schema_checks import (
    DRAFT,
    MAX_FAULTS,
    TooMuchWork,
    error_of,
    errors_of,
    schema_errors,
    validator_of,
    value_faults,
)
from flowkit.graph._schema_contradictions import OBJECTS, Kinds, contradictions
from flowkit.graph._schema_properties import (
    LISTS,
    MAPS,
    REFERENCE,
    SINGLE,
    Schema,
    default_properties,
    definition_name,
    subschemas,
)

MAX_SUBSCHEMAS = 2_000
"""Maximum number of subschemas, with each reference replaced by the schema that it leads to."""
UNSUPPORTED = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)
OTHERS = frozenset(
    """$comment $ref $schema const contentEncoding contentMediaType contentSchema default
    dependentRequired deprecated description discriminator enum examples exclusiveMaximum
    exclusiveMinimum format maxContains maxItems maxLength maxProperties maximum minContains
    minItems minLength minProperties minimum multipleOf pattern readOnly required title type
    uniqueItems writeOnly""".split()
)
"""Keywords whose value contains no schema to check, and ``discriminator``, which pydantic adds."""
KEYWORDS = SINGLE | LISTS | MAPS | OTHERS

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
TYPES_ELSEWHERE = {
    "bool": "boolean",
    "dict": "object",
    "double": "number",
    "float": "number",
    "int": "integer",
    "list": "array",
    "map": "object",
    "none": "null",
    "str": "string",
    "text": "string",
    "tuple": "array",
}
"""Types by their names in other languages."""


class _Faulty(Exception):
    """Fault of a schema: a sentence."""


def schema_faults(schema: Schema) -> list[str]:
    """Return what is wrong with a schema of params, as sentences."""
    return _type_faults(schema, "params") or (
        value_schema_faults(schema, "params", OBJECTS) or list(_default_faults(schema))
    )


def object_schema_faults(schema: Schema, where: str) -> list[str]:
    """Return what is wrong with a schema of objects, as sentences about ``where`` it is."""
    return _type_faults(schema, where) or value_schema_faults(schema, where, OBJECTS)


def _type_faults(schema: Schema, where: str) -> list[str]:
    kinds = schema.get("type", "object")
    if "object" in (kinds if isinstance(kinds, list) else [kinds]):
        return []
    return [f"{where}: the type of the schema must be 'object', not {short(kinds)}"]


def value_schema_faults(schema: Schema, where: str, kinds: Kinds = None) -> list[str]:
    """Return what is wrong with a schema of values that have these types, or any, as sentences
    about ``where`` it is.
    """
    found = schema_errors(schema)
    if not found:
        try:
            _check_size(schema)
            validator_of(to_json(schema))
            found = list(islice(contradictions(schema, kinds), MAX_FAULTS))
        except _Faulty as error:
            return [f"{where}: {error}"]
        except ValueError as error:
            found = [error_of(error)]
    return [f"{place((where, *path))}: {text}{_advice(schema, path, text)}" for path, text in found]


def _advice(schema: Schema, path: Path, text: str) -> str:
    """Return advice on frequent mistakes in a schema, or an empty text."""
    if text.endswith('is not a "regex"'):
        return "; patterns have the syntax of Rust, without look-around and back-references"
    value: Any = schema
    for step in path:
        value = value[step]
    if path and path[-1] == "type" and isinstance(value, str):
        near = get_close_matches(value[:100], TYPES, n=1)
        word = TYPES_ELSEWHERE.get(value.lower()) or next(iter(near), None)
        return f"; did you mean {word!r}?" if word else f"; the types are {', '.join(TYPES)}"
    return ""


def with_defaults(schema: Schema, params: dict[str, Any]) -> dict[str, Any]:
    """Return params with the defaults of the top-level properties that they lack."""
    missing = {
        name: value for name, value in default_properties(schema).items() if name not in params
    }
    return params | from_json(to_json(missing)) if missing else params


def params_faults(schema: Schema, params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with params by a valid schema, as sentences."""
    return value_faults(schema, dict(params), "params")


def _default_faults(schema: Schema) -> Iterator[str]:
    defaults = from_json(to_json(default_properties(schema)))
    try:
        found = errors_of(schema, defaults) if defaults else ()
    except TooMuchWork:
        yield "params: the defaults are too large to be checked"
        return
    for path, text in found:
        if path:
            yield f"params: the default of {short(path[0])} is wrong: {text}"


# ---------------------------------------------------------------- size


def _check_size(schema: Schema) -> int:
    """Return the number of subschemas, with each reference replaced by its target.

    Raises:
        _Faulty: there are too many, or a reference is not allowed.
    """
    dialect = schema.get("$schema", DRAFT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DRAFT:
        raise _Faulty(f"$schema must be {DRAFT!r}, not {short(dialect)}")
    return _Size(schema).of(schema)


class _Size:
    """Size of a schema and of its definitions."""

    def __init__(self, root: Schema) -> None:
        self._definitions = root.get("$defs", {})
        self._root = root
        self._sizes: dict[str, int | None] = {}
        """Sizes of definitions by name; None while a size is being computed."""

    def of(self, schema: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        size = 1 + sum(map(self.of, subschemas(schema)))
        for name in schema:
            if name in UNSUPPORTED or (name == "$schema" and schema is not self._root):
                raise _Faulty(f"{name} is not supported; refer to definitions as {REFERENCE}NAME")
            if name not in KEYWORDS and not name.startswith("x-"):
                raise _Faulty(_unknown(name))
        if "$ref" in schema:
            size += self._of_definition(schema["$ref"])
        if size > MAX_SUBSCHEMAS:
            raise _Faulty(
                f"the schema has more than {MAX_SUBSCHEMAS} subschemas, with each $ref replaced by"
                " its definition; simplify it"
            )
        return size

    def _of_definition(self, reference: Any) -> int:
        name = definition_name(reference)
        if not str(reference).startswith(REFERENCE) or name not in self._definitions:
            raise _Faulty(f"$ref {short(reference)} is not one of the schema's own {REFERENCE}NAME")
        if name not in self._sizes:
            self._sizes[name] = None
            self._sizes[name] = self.of(self._definitions[name])
        size = self._sizes[name]
        if size is None:
            raise _Faulty(f"$ref {short(reference)} is part of a cycle, which is not supported")
        return size


def _unknown(name: str) -> str:
    near = get_close_matches(name, KEYWORDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "names of properties belong under 'properties'"
    return f"{short(name)} is not a keyword of JSON Schema; {hint}"
