"""Kafka's form of FlowKit's messages: keys, partitions, sizes and fetched records."""

from collections.abc import Mapping
from typing import Any
from zlib import crc32

from aiokafka import ConsumerRecord

from flowkit.errors import MessageTooLarge
from flowkit.protocols import Delivery, Message
from flowkit_kafka._progress import Progress

OVERHEAD_BYTES = 65_536
"""Room for key, headers and record frame above the largest value; new topics allow for it."""
_FRAME_BYTES = 256
_HEADER_FRAME_BYTES = 10
_SURELY_SMALL_KEY = 1_000
_NO_HEADERS: Mapping[str, bytes] = {}


def key_bytes(key: str) -> bytes:
    """Encode a key for Kafka; a key that was not UTF-8 when it came keeps its original bytes."""
    return key.encode("utf-8", "surrogateescape")


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key.

    The rule is FlowKit's own, so that every client and every version of the driver agrees.
    """
    return crc32(key) % partitions


def delivery(progress: Progress, record: ConsumerRecord[Any, Any]) -> Delivery:
    """Make a delivery of a fetched record."""
    key: bytes | None = record.key
    message = Message(
        progress.topic,
        record.value or b"",
        "" if key is None else key.decode("utf-8", "surrogateescape"),
        {name: value or b"" for name, value in record.headers} if record.headers else _NO_HEADERS,
    )
    at = record.timestamp / 1000 if record.timestamp >= 0 else None
    return Delivery(message, progress.partition, record.offset, progress, at)


def check_size(message: Message, limit: int) -> None:
    """Refuse a message that the brokers would refuse, before anything is sent.

    Raises:
        MessageTooLarge: the value is above ``limit``, or key and headers are above the rest.
    """
    size = len(message.value)
    if size > limit:
        raise MessageTooLarge(
            f"a message for topic {message.topic!r} has {size:,} bytes; the limit is {limit:,}"
            " (max_message_bytes)"
        )
    if message.headers or len(message.key) > _SURELY_SMALL_KEY:
        extra = len(key_bytes(message.key)) + sum(
            len(name.encode()) + len(value) + _HEADER_FRAME_BYTES
            for name, value in message.headers.items()
        )
        most = OVERHEAD_BYTES - _FRAME_BYTES
        if extra > most:
            raise MessageTooLarge(
                f"key and headers of a message for topic {message.topic!r} have {extra:,} bytes;"
                f" the limit is {most:,}"
            )
