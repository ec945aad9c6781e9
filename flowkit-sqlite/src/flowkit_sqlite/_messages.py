"""Stored form of messages: partitions, headers, deliveries and dead letters."""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from zlib import crc32

from flowkit.errors import MessageTooLarge
from flowkit.protocols import Delivery, Message

_NO_HEADERS: Mapping[str, bytes] = MappingProxyType({})
_HEADERS_KEPT = 256
"""Headers whose forms are kept, because the messages of a task have the same ones."""
_MAX_REASON = 2_000


def partition_of(key: str, partitions: int) -> int:
    """Return the number of a key's partition. All versions must agree on it."""
    return crc32(key.encode("utf-8", "surrogatepass")) % partitions


def encode_headers(headers: Mapping[str, bytes]) -> str:
    """Return headers as JSON in which each character of a value is a byte."""
    return _encode(tuple(headers.items())) if headers else ""


@lru_cache(_HEADERS_KEPT)
def _encode(headers: tuple[tuple[str, bytes], ...]) -> str:
    return json.dumps({name: value.decode("latin-1") for name, value in headers})


@lru_cache(_HEADERS_KEPT)
def decode_headers(text: str) -> Mapping[str, bytes]:
    """Return the headers of their JSON. If another program damaged it, there are no headers."""
    if not text:
        return _NO_HEADERS
    try:
        decoded = json.loads(text).items()
        return MappingProxyType({name: value.encode("latin-1") for name, value in decoded})
    except (ValueError, AttributeError):
        return _NO_HEADERS


def check_size(message: Message, limit: int) -> None:
    """Refuse a message with a value above the limit.

    Raises:
        MessageTooLarge: it is.
    """
    if len(message.value) > limit:
        raise MessageTooLarge(
            f"a message for topic {message.topic!r} has {len(message.value):,} bytes; the limit is"
            f" {limit:,} (max_message_bytes)"
        )


def dead_letter(delivery: Delivery, topic: str, reason: str) -> Message:
    """Return the dead letter of a message, with its origin and the reason."""
    message = delivery.message
    origin = {
        "flowkit-reason": reason[:_MAX_REASON].encode("utf-8", "backslashreplace"),
        "flowkit-topic": message.topic.encode(),
        "flowkit-partition": str(delivery.partition).encode(),
        "flowkit-position": str(delivery.position).encode(),
    }
    return Message(topic, message.value, message.key, {**message.headers, **origin})
