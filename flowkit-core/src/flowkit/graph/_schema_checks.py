"""Checks of values against valid JSON Schemas, with bounded work.

The library checks a value in one call, in which nothing else runs, and copies values into its
errors. So a large value is checked part by part.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json, to_json

from flowkit._json.values import Path, place
from flowkit._text.redaction import without_middle
from flowkit.graph._schema_properties import Schema, definition_name, subschemas

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

MAX_WORK = 20_000_000
"""Maximum work of a check. A unit takes up to 25 ns."""
MAX_WORK_OF_PART = 1_000_000
"""Maximum work of a part that cannot be split. The library does not let other threads run."""
WORK_AT_ONCE = 10_000
"""Work above which a value is checked in parts, and in a thread. An error of each of these values
takes about a hundred times as long.
"""
VALUES_AT_ONCE = 1_000
"""Values above which a value is checked in a thread: counting them takes long."""
WORK_OF_ITEMS = WORK_AT_ONCE // 4
"""Work of the items of a list that are checked together, if it is checked in parts. As a list, they
are less than four times as much work, so that they are not split again.
"""
WORK_OF_VALID = 400_000
"""Work up to which a value is first checked at once: most values are valid."""
WORK_OF_ERRORS = 100_000
"""Subschemas times values times values up to which the library lists the errors of a value."""
WORK_OF_EVALUATION = 100_000
"""Work up to which it finds all errors of a value at once; above, they are not listed."""
WORK_OF_BIG_NUMBER = 50
"""Work of comparing two numbers of more than 64 bits, which are compared each with each."""
WORK_OF_KEYWORD = {"enum": 8, "const": 8, "multipleOf": 100, "uniqueItems": 8}
"""Work of keywords that take longer than others, for each value."""
CHARACTERS_A_VALUE = 16
"""Characters of a text that are as much work as another value."""
MAX_PATTERN_BYTES = 100_000
"""Maximum size of a compiled pattern."""
MAX_FAULTS = 200
MAX_TEXT = 200
MAX_64_BITS = 2**64
WORK_OF_DRAFT = 50
"""Work of checking one value of a schema by that of its draft."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"
CHOICES = frozenset({"anyOf", "oneOf"})
"""Keywords that can be split if the value has the type of only one of their subschemas."""
SPLIT = frozenset({"$ref", "additionalProperties", "allOf", "items", "properties"})
"""Keywords whose subschemas can be checked apart from the others."""
NOT_SPLIT = frozenset(
    {"patternProperties", "prefixItems", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords that depend on others."""


class TooMuchWork(Exception):
    """A check that exceeds the limit."""


class Part(NamedTuple):
    """Part of a check: a value, and a subschema for it."""

    schema: Any
    value: Any
    path: Path
    first: int = 0
    """Index of the first item, if the value is a part of a list."""


Error = tuple[Path, str]
"""Place in a value, and what is wrong there."""


def value_faults(schema: Schema, value: Any, name: str) -> list[str]:
    """Return what is wrong with a value of this name by a valid schema, as sentences."""
    try:
        return [f"{place((name, *path))}: {text}" for path, text in errors_of(schema, value)]
    except TooMuchWork:
        return [f"{name} is too large to be checked by its JSON Schema"]


def errors_of(schema: Schema, value: Any) -> list[Error]:
    """Return the errors of a value by a valid schema.

    Raises:
        TooMuchWork: the check exceeds the limit.
    """
    return list(islice(_Check(schema).errors(Part(schema, value, ())), MAX_FAULTS))


def schema_errors(schema: Schema) -> list[Error]:
    """Return the errors of a schema by that of its draft."""
    validator = validator_of(to_json({"$ref": DRAFT}))
    return _listed(validator, dict(schema), WORK_OF_DRAFT * _counts(schema)[0])


def takes_long(schema: Schema, value: Any) -> bool:
    """Return whether the check of a value takes so long that it should run in a thread."""
    if _counts(value, most=VALUES_AT_ONCE)[0] > VALUES_AT_ONCE:
        return True
    return _Check(schema).work(schema, value) > WORK_AT_ONCE


class _Check:
    """Check of a value against a schema and its definitions."""

    def __init__(self, root: Schema) -> None:
        self._definitions: Mapping[str, Any] = root.get("$defs", {})
        self._weights: dict[int, tuple[Any, int]] = {}
        """Schemas with their weights, by their identity."""
        self._done = 0
        """Work of the parts that were checked."""

    def work(self, schema: Any, value: Any) -> int:
        """Return the work of checking a value at once."""
        values, big = _counts(value)
        return self._weight(schema) * values + WORK_OF_BIG_NUMBER * big * big

    def errors(self, part: Part) -> Iterator[Error]:
        """Yield the errors of a part.

        Raises:
            TooMuchWork: the check exceeds the limit.
        """
        work = self.work(part.schema, part.value)
        if WORK_AT_ONCE < work <= WORK_OF_VALID and self._validator(part).is_valid(part.value):
            self._done += work
            return
        if work > WORK_AT_ONCE and isinstance(part.schema, dict):
            parts = list(self._parts(part.schema, part.value, part.path))
            if len(parts) > 1:
                for one in parts:
                    yield from self.errors(one)
                return
        self._done += work
        if work > MAX_WORK_OF_PART or self._done > MAX_WORK:
            raise TooMuchWork
        for path, text in _listed(self._validator(part), part.value, work):
            if part.first and path:
                path = (int(path[0]) + part.first, *path[1:])
            yield (*part.path, *path), text

    def _weight(self, schema: Any) -> int:
        """Return the work of checking one value: the number of subschemas, with each reference
        replaced by its definition, and of values to compare with.
        """
        if not isinstance(schema, dict):
            return 1
        if (known := self._weights.get(id(schema))) is not None:
            return known[1]
        weight = 1 + sum(map(self._weight, subschemas(schema)))
        for name, each in WORK_OF_KEYWORD.items():
            if name in schema:
                weight += each * _counts(schema[name])[0]
        if "$ref" in schema:
            weight += self._weight(self._definitions[definition_name(schema["$ref"])])
        self._weights[id(schema)] = schema, weight
        return weight

    def _validator(self, part: Part) -> "Draft202012Validator":
        schema = part.schema
        if isinstance(schema, dict):
            schema = {**schema, "$defs": self._definitions}
        return validator_of(to_json(schema))

    # ------------------------------------------------------------ parts

    def _parts(self, schema: Schema, value: Any, path: Path) -> Iterator[Part]:
        """Yield parts of a check that together are the whole check."""
        split = set() if NOT_SPLIT & schema.keys() else set(SPLIT & schema.keys())
        if "properties" in split:
            split.discard("additionalProperties")  # it depends on their names
        for name in CHOICES & schema.keys():
            if sum(_may_match(one, value) for one in schema[name]) == 1:
                split.add(name)
        yield Part(_without(schema, split), value, path)
        if "$ref" in split:
            yield Part(self._definitions[definition_name(schema["$ref"])], value, path)
        for below in schema["allOf"] if "allOf" in split else ():
            yield Part(below, value, path)
        for name in CHOICES & split:
            yield Part(next(one for one in schema[name] if _may_match(one, value)), value, path)
        if isinstance(value, dict) and "properties" in split:
            for name in schema["properties"].keys() & value.keys():
                yield Part(schema["properties"][name], value[name], (*path, name))
        if isinstance(value, dict) and "additionalProperties" in split:
            for name, item in value.items():
                yield Part(schema["additionalProperties"], item, (*path, name))
        if isinstance(value, list) and "items" in split:
            yield from self._chunks(schema["items"], value, path)

    def _chunks(self, schema: Any, items: list[Any], path: Path) -> Iterator[Part]:
        """Yield parts of a list, each of items that can be checked at once, or of one item."""
        each = {"items": schema}
        first, total = 0, 0
        for index, item in enumerate(items):
            work = self.work(schema, item)
            if total + work > WORK_OF_ITEMS and index > first:
                yield self._chunk(each, items[first:index], path, first)
                first, total = index, 0
            total += work
        yield self._chunk(each, items[first:], path, first)

    def _chunk(self, each: Schema, items: list[Any], path: Path, first: int) -> Part:
        if len(items) == 1:
            return Part(each["items"], items[0], (*path, first))
        return Part(each, items, path, first)


def _listed(validator: "Draft202012Validator", value: Any, work: int) -> list[Error]:
    """Return the errors of a value. The library lists them in a way that depends on the work."""
    if validator.is_valid(value):
        return []
    if work * _counts(value)[0] <= WORK_OF_ERRORS:
        errors = islice(validator.iter_errors(value), MAX_FAULTS)
        return [error_of(error) for error in errors]
    if work <= WORK_OF_EVALUATION:
        found = islice(validator.evaluate(value).errors(), MAX_FAULTS)
        return [(_steps(one["instanceLocation"], value), _shortened(one["error"])) for one in found]
    return [((), "it does not match its JSON Schema")]


def _may_match(schema: Any, value: Any) -> bool:
    """Return whether a value may have the type that a schema names, if it names one."""
    kinds = schema.get("type") if isinstance(schema, dict) else None
    if kinds is None:
        return schema is not False
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return any(type(value) in _TYPES[kind] for kind in kinds)


_TYPES: Mapping[str, Collection[type]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int, float),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def _without(schema: Schema, split: set[str]) -> Schema:
    """Return a schema without the keywords that are checked apart."""
    rest = {name: value for name, value in schema.items() if name not in split and name != "$defs"}
    if "properties" in split and "additionalProperties" in schema:
        rest["properties"] = dict.fromkeys(schema["properties"], True)
    return rest


def _steps(pointer: str, value: Any) -> Path:
    """Return the path of a JSON pointer into a value."""
    path: list[str | int] = []
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            path.append(int(name))
            value = value[int(name)]
        else:
            path.append(name)
            value = value[name]
    return tuple(path)


@lru_cache(maxsize=128)
def validator_of(schema: bytes) -> "Draft202012Validator":
    """Return a validator for a schema, given as JSON.

    Raises:
        ValueError: the schema is invalid.
    """
    # Imported on demand: most processes use no schema, and loading the library takes a while.
    from jsonschema_rs import Draft202012Validator, RegexOptions

    return Draft202012Validator(
        from_json(schema),
        validate_formats=True,
        pattern_options=RegexOptions(size_limit=MAX_PATTERN_BYTES),
        offline=True,
    )


def error_of(error: ValueError) -> Error:
    """Return the place and the text of an error of the library."""
    path = tuple(getattr(error, "instance_path", ()))
    return path, _shortened(str(getattr(error, "message", error)))


def _shortened(text: str) -> str:
    """Return a text of the library without the middle: a value at its begin, or a list of choices
    at its end, may be long.
    """
    return without_middle(text, MAX_TEXT)


def _counts(value: Any, *, most: float = inf) -> tuple[int, int]:
    """Return the number of values in a JSON value, where long texts count as several, and of
    numbers of more than 64 bits. Above ``most`` values, they are not counted further.
    """
    level, count, big = [value], 0, 0
    while level:
        count += len(level)
        if count > most:
            break
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                count += len(item) // CHARACTERS_A_VALUE
            elif isinstance(item, dict):
                below += item.values()
                count += sum(map(len, item)) // CHARACTERS_A_VALUE
            elif isinstance(item, list):
                below += item
            elif isinstance(item, int) and not -MAX_64_BITS < item < MAX_64_BITS:
                big += 1
        level = below
    return count, big
