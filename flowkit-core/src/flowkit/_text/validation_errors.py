"""Texts of the errors that pydantic finds in values."""

from collections.abc import Mapping
from typing import Any


def message_of(error: Mapping[str, Any]) -> str:
    """Return the message of one of the errors of a ``ValidationError``. That of a validator is the
    text that the validator raised, without the prefix that pydantic adds.
    """
    text = str(error["msg"])
    return text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
