"""Dead letters of messages that FlowKit cannot use."""

from collections.abc import Mapping

from flowkit.errors import MessageTooLarge
from flowkit.protocols import Delivery, Message
from flowkit_kafka._messages import check_size

_MAX_REASON = 2_000
_MAX_KEY = 1_000


def dead_letter(delivery: Delivery, reason: str, *, topic: str, limit: int) -> Message:
    """Return the dead letter of a message: value, key and headers, its origin and the reason.

    A message that is too large to be published, as other programs may write, is cut and loses its
    own headers: this is better than a blocked partition.
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
