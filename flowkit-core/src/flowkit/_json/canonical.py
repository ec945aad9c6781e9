"""Canonical JSON: equal values have one text."""

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return a JSON value as a text that is the same for equal values: the order of members does
    not count, and neither does whether a whole number is written as 2 or as 2.0.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
