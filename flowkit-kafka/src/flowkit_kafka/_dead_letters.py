"""Dead letters: what a message becomes that nobody can use."""

from collections.abc import Mapping

from flowkit.errors import MessageTooLarge
from flowkit.protocols import Delivery, Message
from flowkit_kafka._producer import check_size

_MAX_REASON = 2_000
_MAX_KEY = 1_000


def dead_letter(delivery: Delivery, reason: str, *, topic: str, limit: int) -> Message:
    """The dead letter of a message: its value, key and headers, with where it came from and why.

    One that is too large to be published, as somebody else's may be, is cut and keeps none of its
    own headers: better than a partition that stands still.
    """
    message = delivery.message
    origin: Mapping[str, bytes] = {
        "flowkit-reason": reason[:_MAX_REASON].encode("utf-8", "backslashreplace"),
        "flowkit-topic": message.topic.encode(),
        "flowkit-partition": str(delivery.partition).encode(),
        "flowkit-position": str(delivery.position).encode(),
    }
    letter = Message(topic, message.value, message.key, {**message.headers, **origin})
    try:
        check_size(letter, limit)
    except MessageTooLarge:
        size = str(len(message.value)).encode()
        return Message(
            topic,
            message.value[:limit],
            message.key[:_MAX_KEY],
            {**origin, "flowkit-truncated": size},
        )
    return letter
