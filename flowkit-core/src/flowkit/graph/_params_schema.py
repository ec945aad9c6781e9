"""JSON Schemas in graphs: checks of the schemas, and of params and other values against them.

The draft is 2020-12. The size of a schema and the work of a check are bounded: references lead to
the schema's own ``$defs`` and never in a cycle, nothing is fetched, and patterns are matched in
linear time.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from flowkit._json.values import place, short
from flowkit._text.redaction import shortened
from flowkit.graph._schema_properties import REFERENCE, default_properties, definition_name

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_SUBSCHEMAS = 2_000
"""Maximum number of subschemas, with each reference replaced by the schema that it leads to."""
MAX_WORK = 20_000_000
"""Maximum number of subschemas times values in the params. That many are checked in about a
second.
"""
MAX_PATTERN_BYTES = 100_000
"""Maximum size of a compiled pattern."""
MAX_FAULTS = 200
MAX_TEXT = 300
UNSUPPORTED = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"}
)
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
OTHERS = frozenset(
    """$comment $ref $schema const contentEncoding contentMediaType contentSchema default
    dependentRequired deprecated description discriminator enum examples exclusiveMaximum
    exclusiveMinimum format maxContains maxItems maxLength maxProperties maximum minContains
    minItems minLength minProperties minimum multipleOf pattern readOnly required title type
    uniqueItems writeOnly""".split()
)
"""Keywords whose value contains no schema to check, and ``discriminator``, which pydantic adds."""
KEYWORDS = SINGLE | LISTS | MAPS | OTHERS

Schema = Mapping[str, Any]


class _Faulty(Exception):
    """Fault of a schema: a sentence."""


def schema_faults(schema: Schema) -> list[str]:
    """Return what is wrong with a schema of params, as sentences."""
    return _type_faults(schema, "params") or (
        value_schema_faults(schema, "params") or list(_default_faults(schema))
    )


def object_schema_faults(schema: Schema, where: str) -> list[str]:
    """Return what is wrong with a schema of objects, as sentences about ``where`` it is."""
    return _type_faults(schema, where) or value_schema_faults(schema, where)


def _type_faults(schema: Schema, where: str) -> list[str]:
    kinds = schema.get("type", "object")
    if "object" in (kinds if isinstance(kinds, list) else [kinds]):
        return []
    return [f"{where}: the type of the schema must be 'object', not {short(kinds)}"]


def value_schema_faults(schema: Schema, where: str) -> list[str]:
    """Return what is wrong with a schema of any values, as sentences about ``where`` it is."""
    faults = list(_by_metaschema(schema, where))
    if faults:
        return faults
    try:
        _check_size(schema)
        _validator(to_json(schema))
    except _Faulty as error:
        return [f"{where}: {error}"]
    except ValueError as error:
        return [f"{where}: {_shown(error)}"]
    return []


def with_defaults(schema: Schema, params: dict[str, Any]) -> dict[str, Any]:
    """Return params with the defaults of the top-level properties that they lack."""
    missing = {
        name: value for name, value in default_properties(schema).items() if name not in params
    }
    return params | from_json(to_json(missing)) if missing else params


def params_faults(schema: Schema, params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with params by a valid schema, as sentences."""
    return value_faults(schema, dict(params), "params")


def value_faults(schema: Schema, value: Any, name: str) -> list[str]:
    """Return what is wrong with a value of this name by a valid schema, as sentences."""
    if _check_size(schema) * _count(value) > MAX_WORK:
        return [f"{name} is too large to be checked by its JSON Schema"]
    errors = islice(_validator(to_json(schema)).iter_errors(value), MAX_FAULTS)
    return [f"{place((name, *error.instance_path))}: {_shown(error)}" for error in errors]


def _default_faults(schema: Schema) -> Iterator[str]:
    defaults = default_properties(schema)
    for error in _validator(to_json(schema)).iter_errors(defaults) if defaults else ():
        if error.instance_path:
            name = short(error.instance_path[0])
            yield f"params: the default of {name} is wrong: {_shown(error)}"


# ---------------------------------------------------------------- library


@lru_cache(maxsize=128)
def _validator(schema: bytes) -> "Draft202012Validator":
    # Imported on demand: most processes use no schema, and loading the library takes a while.
    from jsonschema_rs import Draft202012Validator, RegexOptions

    return Draft202012Validator(
        from_json(schema),
        validate_formats=True,
        pattern_options=RegexOptions(size_limit=MAX_PATTERN_BYTES),
        offline=True,
    )


def _by_metaschema(schema: Schema, where: str) -> Iterator[str]:
    for error in islice(_validator(to_json({"$ref": DRAFT})).iter_errors(dict(schema)), MAX_FAULTS):
        yield f"{place((where, *error.instance_path))}: {_shown(error)}"


def _shown(error: ValueError) -> str:
    return shortened(str(getattr(error, "message", error)), MAX_TEXT)


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
        size = 1 + sum(map(self.of, _below(schema)))
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


def _below(schema: Schema) -> Iterator[Any]:
    for name, value in schema.items():
        if name in SINGLE:
            yield value
        elif name in LISTS and isinstance(value, list):
            yield from value
        elif name in MAPS and isinstance(value, dict):
            yield from value.values()


def _count(value: Any) -> int:
    """Return the number of values in a JSON value."""
    level: Sequence[Any] = [value]
    count = 0
    while level:
        count += len(level)
        level = [
            item
            for one in level
            if isinstance(one, (dict, list))
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return count
