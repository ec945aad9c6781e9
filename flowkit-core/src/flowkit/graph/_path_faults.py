"""Faults of the names that an expression reads: names and fields that cannot exist."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from flowkit._json.values import short
from flowkit.graph._schema_properties import can_have, property_names, property_schema

ERROR_FIELDS = ("reason_code", "error", "attempt")
"""Fields of the error of a failed node."""
SCHEDULE_FIELDS = ("id", "at")
"""Fields of the name ``schedule``."""
EVENT_FIELDS = ("value", "key", "headers", "topic", "partition", "offset", "timestamp")
"""Fields of the name ``event``, with a source that gives all of them."""
MAX_NAMES = 12
_DASHED = re.compile(r"\b(results|errors)\.(\w+(?:-\w+)+)")
"""Node id with dashes after a dot, where it is read as a difference."""


@dataclass(frozen=True, slots=True)
class ExpressionFault:
    """Fault of an expression: a sentence, in which a position may be inserted."""

    reason: str
    position: int | None = None
    advice: str = ""

    def text(self, offset: int = 0) -> str:
        """Return the end of the sentence. The expression starts at ``offset`` in a longer text."""
        place = "" if self.position is None else f" (at character {self.position + offset + 1})"
        return f"{self.reason}{place}{self.advice}"


def path_fault(
    path: tuple[str, ...],
    position: int,
    *,
    expression: str,
    names: tuple[str, ...],
    task: tuple[str, ...],
    event: tuple[str, ...],
    event_value: tuple[str, ...] | None,
    params: Mapping[str, Any] | None,
) -> ExpressionFault | None:
    """Return what is wrong with a path that an expression reads, or None.

    ``names`` are the first names that exist, ``task`` the fields of the task, ``event`` those of
    the event, ``event_value`` those of its value if they are known, and ``params`` is the JSON
    Schema of the params.
    """
    first, *fields = path
    if first not in names:
        advice = _dash_advice(expression, position) or _advice(first, names, "names")
        return ExpressionFault(f"uses the unknown name {first!r}", position, advice)
    if first == "task" and fields and fields[0] not in task:
        return _unknown_field(path[:2], position, task)
    if first == "errors" and len(fields) > 1 and fields[1] not in ERROR_FIELDS:
        return _unknown_field(path[:3], position, ERROR_FIELDS)
    if first == "schedule" and fields and fields[0] not in SCHEDULE_FIELDS:
        return _unknown_field(path[:2], position, SCHEDULE_FIELDS)
    if first == "event" and fields and fields[0] not in event:
        return _unknown_field(path[:2], position, event)
    if path[:2] == ("event", "value") and event_value is not None and len(path) > 2:
        return None if path[2] in event_value else _unknown_field(path[:3], position, event_value)
    if first == "params" and params is not None:
        return _params_fault(path, position, params)
    return None


def _params_fault(
    path: tuple[str, ...], position: int, root: Mapping[str, Any]
) -> ExpressionFault | None:
    schema: Any = root
    for depth, name in enumerate(path[1:], 2):
        if not can_have(root, schema, name):
            return _unknown_field(path[:depth], position, property_names(root, schema))
        schema = property_schema(root, schema, name)
    return None


def _unknown_field(path: tuple[str, ...], position: int, known: Collection[str]) -> ExpressionFault:
    reason = f"uses the unknown field {short('.'.join(path))}"
    return ExpressionFault(reason, position, _advice(path[-1], tuple(known), "fields"))


@lru_cache(maxsize=256)
def _advice(word: str, known: tuple[str, ...], kind: str) -> str:
    near = get_close_matches(word, known, n=1) if len(word) <= 200 else []
    if near:
        return f"; did you mean {short(near[0])}?"
    return f"; known {kind}: {_listed(known)}"


def _listed(known: Iterable[str]) -> str:
    shown = [short(name)[1:-1] for name in known]
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return (", ".join(shown[:MAX_NAMES]) + more) or "none"


def dash_advice(expression: str, target: str, known: Collection[str]) -> str:
    """Return advice on the id of a known node, with dashes, of which an expression reads only the
    first part, ``target``.
    """
    for found in _DASHED.finditer(expression):
        if found[2] in known and found[2].startswith(f"{target}-"):
            return _in_brackets(found)
    return ""


def _dash_advice(expression: str, position: int) -> str:
    """Return advice on a node id with dashes of which the name at this position is a part."""
    for found in _DASHED.finditer(expression):
        if found.start(2) < position < found.end():
            return _in_brackets(found)
    return ""


def _in_brackets(found: re.Match[str]) -> str:
    return f"; for the node {found[2]!r}, write {found[1]}[{found[2]!r}]"
