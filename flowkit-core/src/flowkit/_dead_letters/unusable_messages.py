"""Messages that cannot be read: they are kept as dead letters in the store, and on the bus."""

import logging
from collections.abc import Sequence
from typing import Any

from flowkit._codecs.bus_codec import as_sent
from flowkit._records.letter_records import letter_id, park_letters
from flowkit._runtime.retries import notices_of, retry
from flowkit._text.redaction import MAX_ERROR_CHARS
from flowkit._user_code.containment import undo_cancellation
from flowkit.errors import StoreError, TaskRefused, TopicUnavailable
from flowkit.measures import Measure
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Delivery, Message, Store, Subscription
from flowkit.task import DeadLetter

logger = logging.getLogger(__name__)

PATIENCE_SEC = 10.0
"""Longest wait for an unavailable store. Later messages of the partition wait as well."""
MAX_VALUE_BYTES = 1024 * 1024


class Parking:
    """Storage of rejected messages. If the store stays unavailable, a message is on the dead-letter
    topic only.
    """

    def __init__(self, *, store: Store, clock: Clock, plugins: Plugins) -> None:
        self._store = store
        self._clock = clock
        self._plugins = plugins

    async def keep(self, refused: Sequence[tuple[Delivery, str]]) -> bool:
        """Store messages that are rejected for these reasons. Return whether the store has them.
        Storing one twice is harmless.
        """
        if not refused:
            return True
        for delivery, reason in refused:
            logger.warning(
                "A message on %s is parked: %s",
                delivery.message.topic,
                reason,
                extra={"action": "message_parked", "partition": delivery.partition},
            )
        return await self._keep(
            [message_letter(delivery, reason, at=self._clock.now()) for delivery, reason in refused]
        )

    async def reject(
        self, subscription: Subscription, delivery: Delivery, reason: str, *, kept: bool
    ) -> None:
        """Move a message to the dead-letter topic and acknowledge it.

        If that topic cannot be used, a message that was ``kept`` is acknowledged nevertheless, so
        that later messages do not wait.

        Raises:
            BusUnavailable: the message is not acknowledged.
        """
        notices = notices_of(self._clock)
        try:
            await subscription.reject([delivery], reason)
        except TopicUnavailable as error:
            if not kept:
                raise
            notices.trouble(
                logger,
                "dead letters",
                "Refused messages are kept in the store only",
                error,
                action="letters_not_sent",
            )
            await subscription.ack([delivery])
        else:
            notices.over(logger, "dead letters")

    async def _keep(self, letters: Sequence[DeadLetter]) -> bool:
        try:
            await retry(
                lambda: park_letters(self._store, letters),
                on=lambda error: isinstance(error, StoreError),
                sleep=self._clock.sleep,
                patience_sec=PATIENCE_SEC,
                monotonic=self._clock.monotonic,
            )
        except StoreError as error:
            logger.error(
                "%d refused messages are on the dead-letter topic only: the store does not"
                " accept them: %s",
                len(letters),
                error,
                extra={"action": "letters_not_kept"},
            )
            return False
        except Exception:  # the content of one message must not block later ones
            logger.exception(
                "%d refused messages are on the dead-letter topic only",
                len(letters),
                extra={"action": "letters_not_kept"},
            )
            return False
        self._plugins.measure(Measure("dead_letters", len(letters), {"kind": "message"}))
        await undo_cancellation()
        return True


def message_letter(delivery: Delivery, reason: str, *, at: float) -> DeadLetter:
    """Return the dead letter of a message, as it was sent. A message that is delivered again gets
    the same id.
    """
    message = as_sent(delivery)
    value = bytes(message.value)
    origin = f"{message.topic}\n{delivery.partition}\n{delivery.position}\n".encode(
        "utf-8", "surrogatepass"
    )
    return DeadLetter(
        letter_id=letter_id("message", origin + value),
        at=at,
        kind="message",
        reason_code="refused",
        error=reason[:MAX_ERROR_CHARS],
        **message_fields(message),
        partition=delivery.partition,
        position=delivery.position,
    )


def message_fields(message: Message) -> dict[str, Any]:
    """Return what a dead letter keeps of a message."""
    value = bytes(message.value)
    return {
        "data": value[:MAX_VALUE_BYTES],
        "size": len(value),
        "topic": message.topic,
        "key": message.key,
        "headers": dict(message.headers),
    }


def message_of(letter: DeadLetter, what: str) -> Message:
    """Return the message of a letter as it was. ``what`` names it in the error.

    Raises:
        TaskRefused: it was too large to be kept in full.
    """
    if letter.topic is None or len(letter.data) != letter.size:
        raise TaskRefused(f"the {what} was too large to be kept in full")
    return Message(letter.topic, letter.data, letter.key, letter.headers)
