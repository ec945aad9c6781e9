"""Events that were read from the source of a trigger."""

from typing import Any

from pydantic_core import from_json

from flowkit._json.limits import MAX_BYTES, MAX_DEPTH, above_bounds
from flowkit._json.values import is_plain
from flowkit._triggers._events import TriggerEvent
from flowkit.protocols import Delivery


def cause_of(delivery: Delivery) -> str:
    """Return the text from which the id of an event's task follows.

    The time tells events of a topic apart from those of a topic that was deleted and created again.
    """
    at = delivery.timestamp
    when = "" if at is None else round(at * 1000)
    return f"{delivery.message.topic}/{delivery.partition}/{delivery.position}/{when}"


def event_of_delivery(delivery: Delivery) -> tuple[TriggerEvent, str | None]:
    """Return the event of a delivery, and why its value cannot be read, if so. Then the value of
    the event is its text.
    """
    message = delivery.message
    value, fault = _value(message.value)
    event = TriggerEvent(
        value,
        key=_text(message.key.encode("utf-8", "surrogateescape")),
        headers={_text(name.encode()): _text(data) for name, data in message.headers.items()},
        topic=message.topic,
        partition=delivery.partition,
        offset=delivery.position,
        timestamp=delivery.timestamp,
    )
    return event, fault


def _value(data: bytes) -> tuple[Any, str | None]:
    if not data:
        return None, None
    if (limit := above_bounds(data)) is not None:
        return _text(data), f"its value cannot be used: {limit}"
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        return _text(data), f"its value is not JSON: {error}"
    if not is_plain(value, "its value", max_bytes=MAX_BYTES, max_levels=MAX_DEPTH):
        return _text(data), "its value is not JSON that can be used: a number in it is too large"
    return value, None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
