"""Dead letters of changes that webhooks could not deliver.

A retry publishes the change again for its webhook alone. The letter stays until that webhook has
delivered the change, so that a retry loses nothing if no process serves the webhook.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from flowkit._dead_letters.unusable_messages import message_fields, message_of
from flowkit._json.limits import MAX_ID_CHARS, has_controls
from flowkit._records.letter_records import drop_letters, letter_id, park_letters
from flowkit._text.redaction import MAX_ERROR_CHARS
from flowkit.adapters import is_unicode
from flowkit.errors import StoreError, StoreUnavailable, TaskRefused
from flowkit.measures import Measure
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Delivery, Message, Store
from flowkit.task import DeadLetter

logger = logging.getLogger(__name__)

ADDRESSEE = "flowkit-webhook"
"""Header of a change that is for one webhook: its name. Others ignore it."""


@dataclass(frozen=True, slots=True)
class WebhookLetters:
    """Dead letters of a webhook in the store."""

    webhook: str
    store: Store
    clock: Clock
    plugins: Plugins

    def is_for_another(self, change: Message) -> bool:
        """Return whether a change was published again for another webhook."""
        return change.headers.get(ADDRESSEE, self.webhook.encode()) != self.webhook.encode()

    async def keep(self, delivery: Delivery, error: str) -> None:
        """Store a change that is not delivered because of this error. Storing it twice is harmless.

        If the store refuses the change, it is logged, and is on the dead-letter topic only.

        Raises:
            StoreUnavailable: the store is unavailable.
        """
        letter = webhook_letter(self.webhook, delivery, error, at=self.clock.now())
        try:
            await park_letters(self.store, [letter])
        except StoreUnavailable:
            raise
        except StoreError as failure:
            logger.error(
                "A change that webhook %s gave up is on the dead-letter topic only: %s",
                self.webhook,
                failure,
                extra={"action": "letters_not_kept"},
            )
        else:
            self.plugins.measure(Measure("dead_letters", 1, {"kind": "webhook"}))

    async def drop(self, delivery: Delivery) -> None:
        """Drop the letter of a change that was published again and is now delivered.

        A letter that remains is harmless: its retry delivers a copy.

        Raises:
            StoreUnavailable: the store is unavailable.
        """
        change = delivery.message
        if ADDRESSEE not in change.headers:
            return
        try:
            await drop_letters(self.store, [_letter_id(self.webhook, change)])
        except StoreUnavailable:
            raise
        except StoreError as failure:
            logger.warning(
                "The letter of a delivered change stays: %s",
                failure,
                extra={"action": "letters_left"},
            )


def webhook_letter(webhook: str, delivery: Delivery, error: str, *, at: float) -> DeadLetter:
    """Return the dead letter of a change. A copy of the change has the same letter."""
    change = delivery.message
    headers = {name: value for name, value in change.headers.items() if name != ADDRESSEE}
    return DeadLetter(
        _letter_id(webhook, change),
        at,
        "webhook",
        "not_delivered",
        error[:MAX_ERROR_CHARS],
        task_id=_task_of(change),
        **message_fields(replace(change, headers=headers)),
        partition=delivery.partition,
        position=delivery.position,
        webhook=webhook,
    )


def change_of(letter: DeadLetter, webhooks: Collection[str]) -> Message:
    """Return the change of a letter as it is published again, for its webhook alone.

    ``webhooks`` are the names of those that are configured; if there are none, any is accepted.

    Raises:
        TaskRefused: the change was too large to be kept in full, or its webhook is not known.
    """
    change = message_of(letter, "change")
    if letter.webhook is None:
        raise TaskRefused("the letter names no webhook")
    if webhooks and letter.webhook not in webhooks:
        known = ", ".join(sorted(webhooks))
        raise TaskRefused(
            f"no webhook {letter.webhook!r} is configured, only {known}; configure it, or drop the"
            " letter"
        )
    return replace(change, headers={**change.headers, ADDRESSEE: letter.webhook.encode()})


def _letter_id(webhook: str, change: Message) -> str:
    return letter_id("webhook", webhook.encode() + b"\n" + change.value, _task_of(change))


def _task_of(change: Message) -> str | None:
    """Return the task of a change; None if the key of a foreign message is not an id."""
    key = change.key
    is_id = 0 < len(key) <= MAX_ID_CHARS and is_unicode(key) and not has_controls(key)
    return key if is_id else None
