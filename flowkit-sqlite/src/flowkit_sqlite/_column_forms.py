"""Allowed values of the columns, in one table.

SQLite checks the types of the columns. The rest is checked when a row is read: text that is not
UTF-8, numbers out of range, and columns of JSON. A row with a wrong value was changed by another
program, or is damaged. It does not affect the rows that are read or written with it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit.adapters import FIRST_MOMENT, LAST_MOMENT, is_unicode

LARGEST_COUNT = 2**53
"""A larger count is damaged: FlowKit never reaches it."""


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of value: in words, and as a check."""

    words: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    """Return whether this is valid Unicode; bytes that are not UTF-8 are read as surrogates."""
    # Most texts are ASCII, and rows have several, so the second call is avoided for these.
    return isinstance(value, str) and (value.isascii() or is_unicode(value))


def whole(first: int, last: int = LARGEST_COUNT) -> Form:
    """Return the form of a whole number in a range."""
    return Form(
        f"a whole number from {first} to {last}",
        lambda value: isinstance(value, int) and first <= value <= last,
    )


def optional(form: Form) -> Form:
    """Return the form of a value that may be missing."""
    return Form(f"{form.words}, or NULL", lambda value: value is None or form.fits(value))


def _json(words: str, fits: Callable[[Any], bool]) -> Form:
    """Return the form of JSON text whose value fits."""

    def check(value: Any) -> bool:
        try:
            return _is_text(value) and fits(json.loads(value))
        except (ValueError, RecursionError):
            return False

    return Form(f"{words} in JSON", check)


TEXT = Form("text in UTF-8", _is_text)
BYTES = Form("a BLOB", lambda value: isinstance(value, bytes))
FLAG = Form("0 or 1", lambda value: isinstance(value, int) and value in (0, 1))
MOMENT = Form(
    "seconds since 1970, in the years 1 to 9999",
    lambda value: isinstance(value, float) and FIRST_MOMENT <= value <= LAST_MOMENT,
)
COUNT, INDEX = whole(0), whole(1)
GENERATION = whole(-LARGEST_COUNT)
"""Generations below 0 are those of claims and windows, which are stored like artifacts."""
TAGS = _json("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))

Columns = Mapping[str, Form]


def _columns(names: str, form: Form) -> dict[str, Form]:
    """Return columns that have the same form."""
    return dict.fromkeys(names.split(), form)


COLUMNS: Mapping[str, Columns] = {
    "tasks": {
        "task_id": TEXT,
        "version": INDEX,
        **_columns("op_id status", TEXT),
        "created_at": MOMENT,
        **_columns("pipeline idempotency_key", optional(TEXT)),
        **_columns("wake_at finished_at", optional(MOMENT)),
        "tags": optional(TAGS),
    },
    "parts": {"name": TEXT, "data": BYTES},
    "labels": {"name": TEXT, "value": TEXT},
    "archive": {"name": TEXT, "rank": COUNT, "data": BYTES},
    "artifact_owners": {"task_id": TEXT},
    "artifacts": {
        "node_id": TEXT,
        "generation": GENERATION,
        "position": INDEX,
        "uid": TEXT,
        "partial": FLAG,
        "meta": optional(BYTES),
        "metrics": BYTES,
        "created_at": MOMENT,
    },
    "records": {
        **_columns("kind key revision", TEXT),
        "data": BYTES,
        "due_at": optional(MOMENT),
        "task_id": optional(TEXT),
    },
}
"""In the order in which rows are read and checked: the fault of a row is the first that is found.
"""

NAMES: Mapping[str, str] = {table: ", ".join(columns) for table, columns in COLUMNS.items()}
"""Names of the columns of each table, for ``SELECT``."""


_CHECKS = {table: [form.fits for form in columns.values()] for table, columns in COLUMNS.items()}


def fault(table: str, row: Sequence[Any]) -> str | None:
    """Return the fault of a row with all columns of :data:`COLUMNS`, or None."""
    for fits, value in zip(_CHECKS[table], row, strict=True):
        if not fits(value):
            return _first_fault(table, row)
    return None


def _first_fault(table: str, row: Sequence[Any]) -> str:
    name, form, value = next(
        (name, form, value)
        for (name, form), value in zip(COLUMNS[table].items(), row, strict=True)
        if not form.fits(value)
    )
    # The text does not contain a value that may be a user's.
    shown = f" {value!r}" if isinstance(value, int | float) else ""
    return (
        f"its row in {table} is not one that FlowKit wrote: column {name!r} must be {form.words},"
        f" but is {type(value).__name__}{shown}"
    )


def fitting(table: str, row: Sequence[Any]) -> dict[str, Any]:
    """Return the undamaged columns of a row, by name."""
    columns = zip(COLUMNS[table].items(), row, strict=True)
    return {name: value for (name, form), value in columns if form.fits(value)}
