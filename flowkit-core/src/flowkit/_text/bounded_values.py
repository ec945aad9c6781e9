"""Plain copies of values of users, of a bounded size."""

from collections.abc import Mapping
from typing import Any

from flowkit._text.redaction import encodable

MOST_DEPTH = 50
"""Levels of lists and objects within each other."""


def plain_copy(value: Any, most: int) -> Any:
    """Return a copy that consists of lists, objects, texts, bytes, numbers, booleans and None.

    The copy takes no longer than for ``most`` characters, and refuses no value whose JSON has at
    most as many. Other values are replaced by their texts.

    Raises:
        ValueError: the value is longer or nested too deeply.
        Exception: what a method of the value raises.
    """
    return _Copy(most).of(value, 1)


class _Copy:
    def __init__(self, most: int) -> None:
        self._most = most
        self._spent = 0

    def of(self, value: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise ValueError(f"the value is nested more than {MOST_DEPTH} levels deep")
        match value:
            case None | bool() | float():
                self._spend(1)
                return value
            case int():
                self._spend(value.bit_length() // 4 + 1)
                return value
            case str() | bytes():
                self._spend(len(value) + 1)
                return value
            case Mapping():
                self._spend(1)
                return {self._key(key): self.of(item, depth + 1) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                self._spend(1)
                items = (self.of(item, depth + 1) for item in value)
                return tuple(items) if isinstance(value, tuple) else list(items)
        return self.of(str(value), depth)

    def _key(self, key: Any) -> str:
        text = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
        self._spend(len(text) + 1)
        return encodable(text)

    def _spend(self, length: int) -> None:
        self._spent += length
        check_length(self._spent, self._most)


def check_length(length: int, most: int) -> None:
    """Check the length of a value.

    Raises:
        ValueError: it is longer than ``most``.
    """
    if length > most:
        raise ValueError(f"the value is longer than {most} bytes")
