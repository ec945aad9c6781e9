"""Limits of JSON from outside, which are checked on its bytes before it is read.

A short text is always within the limits, and so is one without many brackets and commas; counting
them takes almost no time. Only texts with many of them are examined further.
"""

import re
from math import isfinite
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from flowkit._text.redaction import shortened

MAX_BYTES = 16 * 1024 * 1024
"""Length of a message on a bus that has no limit of its own."""
MAX_DEPTH = 200
"""Levels of nested lists and objects in a message. The JSON reader stops there too."""
MAX_ITEMS = 200_000
"""Keys and list items in a message, all together."""

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
MAX_DOCUMENT_LEVELS = 32
"""Levels of nested lists and objects in a document, unless the caller sets another limit."""
MAX_YAML_EVENTS = 500_000
"""Scalars and brackets in a YAML document. Reading that many takes about a second."""

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Length of the JSON of a value that is not part of a graph. Stores and buses have lower limits."""
MAX_VALUE_LEVELS = 128
"""Levels of nested lists and objects in a value. JSON readers stop not far above."""
MAX_NESTED_VALUE_LEVELS = 190
"""The same of a graph with the graphs inside, whose values have limits of their own."""
MAX_INTEGER_BITS = 1_024

LONGEST_REASON = 1_000
"""Characters of the reason why a task is cancelled."""
MAX_ID_CHARS = 200
"""Length of the ids of tasks and nodes, of roles, reason codes and other names."""
MAX_WORKER_ID_CHARS = 400
"""Length of a worker's id in a message. The id may contain a host name."""
MAX_UID_CHARS = 1_000
"""Length of the uid of a batch."""

# Possessive, so that a text that is not JSON causes no backtracking. A string that is never closed
# ends with the text.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
SHORT = 2048
"""Texts below this length do no harm before their reader stops at the depth limit."""
# Every digit becomes 0, every E becomes e. A number with three digits after the e may be too large.
# With two digits it is not, if fewer than 200 digits precede the e.
_SHAPES = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS = b"0" * 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

FIRST_MOMENT = -62_135_596_800.0
"""First second of the year 1, in seconds since 1970: the start of Python's ``datetime``."""
LAST_MOMENT = 253_402_300_799.0
"""Last second of the year 9999, in seconds since 1970: the end of Python's ``datetime``."""
Moment = Annotated[float, Field(ge=FIRST_MOMENT, le=LAST_MOMENT, allow_inf_nan=False)]
"""Seconds since 1970-01-01 UTC."""
LONGEST_SEC = 100 * 365.25 * 24 * 3600
"""A hundred years: the longest time that a setting can have."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Priority = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_SEC, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=LONGEST_SEC, allow_inf_nan=False)]


def above_bounds(data: bytes, limit: int | None = None) -> str | None:
    """Return the limit that a text exceeds (length, depth or items), or None.

    Its length may be up to ``limit``, or :data:`MAX_BYTES`.
    """
    most = MAX_BYTES if limit is None else limit
    if len(data) > most:
        return f"{len(data)} bytes is above the limit of {most}"
    if len(data) < SHORT:
        return None
    opened = data.count(b"[") + data.count(b"{")
    if opened > MAX_DEPTH and is_deeper(data, MAX_DEPTH):
        return f"values are nested more than {MAX_DEPTH} levels deep"
    if len(data) > MAX_ITEMS and opened + data.count(b",") > MAX_ITEMS and _items(data) > MAX_ITEMS:
        return f"it has more than {MAX_ITEMS} keys and items"
    return None


def is_deeper(data: bytes, depth: int) -> bool:
    """Return whether brackets are nested more than ``depth`` levels deep.

    The reader refuses brackets that do not match.
    """
    brackets = _STRING.sub(b"", data).translate(_TO_BRACKETS, _NO_BRACKETS)
    for _ in range(depth):
        # Remove all innermost pairs at once: one level less.
        rest = brackets.replace(b"[]", b"")
        if not rest:
            return False
        if len(rest) == len(brackets):
            break
        brackets = rest
    return brackets.count(b"[") > depth or b"[]" in brackets


def _items(data: bytes) -> int:
    """Return at least the number of items: commas, and one per list or object."""
    bare = _STRING.sub(b"", data)
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")


def is_finite(value: Any) -> bool:
    """Return whether all numbers in a JSON value are finite.

    ``1e999`` is well-formed JSON, and is read as an infinity.
    """
    kind = value.__class__
    if kind is float:
        return isfinite(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return True
    for item in value:
        kind = item.__class__
        if kind is float:
            if not isfinite(item):
                return False
        elif (kind is dict or kind is list) and item and not is_finite(item):
            return False
    return True


def may_overflow(data: bytes) -> bool:
    """Return whether a number in a text could be infinite.

    For a short text it is quicker to check its values.
    """
    if len(data) < SHORT:
        return True
    shapes = data.translate(_SHAPES)
    return (
        b"0e000" in shapes
        or b"0e+000" in shapes
        or _MANY_DIGITS in shapes
        or b"NaN" in data
        or b"Infinity" in data
    )


def has_constants(data: bytes) -> bool:
    """Return whether JSON that was written here has ``NaN`` or ``Infinity`` outside of strings."""
    if b"NaN" not in data and b"Infinity" not in data:
        return False
    bare = _STRING.sub(b"", data)
    return b"NaN" in bare or b"Infinity" in bare


def is_moment(value: object) -> bool:
    """Return whether a value is a :data:`Moment`."""
    return isinstance(value, int | float) and FIRST_MOMENT <= value <= LAST_MOMENT


def has_controls(text: str) -> bool:
    """Return whether a text contains a control character."""
    return _CONTROL.search(text) is not None


def addressable(text: str) -> str:
    """Return an id that can be a part of a URL.

    Raises:
        ValueError: it cannot: clients resolve ``.`` and ``..`` in paths, also percent-encoded ones.
    """
    if text in (".", ".."):
        raise ValueError("'.' and '..' cannot be parts of a URL; choose another name")
    return text


def label_key(text: str) -> str:
    """Return the key of a label.

    Raises:
        ValueError: it is empty, or contains ``=``: a filter ``KEY=VALUE`` could not name it.
    """
    if not text or "=" in text:
        raise ValueError(
            f"{shortened(text)!r} cannot be the key of a label: a key is not empty and contains no"
            " '='"
        )
    return text


LabelText = Annotated[str, Field(max_length=1_000)]
LabelKey = Annotated[LabelText, AfterValidator(label_key)]
"""Key of a label. So the text before the first ``=`` of ``KEY=VALUE`` is the key."""
