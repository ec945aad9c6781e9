"""Bytes, and texts that may not be valid Unicode, as JSON values.

Bytes are a JSON string if they are UTF-8, otherwise an object ``{"base64": "..."}``.
"""

from base64 import b64decode, b64encode
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator


def _data(value: Any) -> bytes:
    """Return data from its JSON."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        return b64decode(value["base64"], validate=True)
    if isinstance(value, bytes):
        return value
    raise ValueError('expected a string or {"base64": "..."}')


def _data_json(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _text(value: Any) -> str:
    """Return a text from its JSON. Messages of other programs may have texts that are not valid
    Unicode.
    """
    if isinstance(value, str):
        return value
    return _data(value).decode("utf-8", "surrogatepass")


def _text_json(text: str) -> str | dict[str, str]:
    return _data_json(text.encode("utf-8", "surrogatepass"))


Data = Annotated[bytes, PlainValidator(_data), PlainSerializer(_data_json)]
Text = Annotated[str, PlainValidator(_text), PlainSerializer(_text_json)]
