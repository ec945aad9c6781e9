"""Signatures and codecs of messages on the bus.

:func:`sealed` wraps a bus in a :class:`SealedBus` if the configuration has signing keys or a plugin
encodes payloads. All code that sends and receives uses the wrapped bus like any other.
"""

import hmac
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, Self

from flowkit._user_code.containment import uncancelled, undo_cancellation
from flowkit.config import CommonConfig
from flowkit.errors import DecodeError, MessageTooLarge, PayloadError
from flowkit.messages import Refused
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, CheckResult, Delivery, Message, Place, Subscription, TopicSpec

SIGNATURE = "flowkit-signature"
FORM = b"1"
"""Version of the signature format."""
ROOM_BYTES = 4096
"""Number of bytes by which a codec may enlarge a message."""


class Seal(Protocol):
    """Change of every message, and its reversal."""

    def close(self, message: Message) -> Message:
        """Return the message in the form in which it is sent."""

    def open(self, message: Message) -> Message:
        """Return the message that was sent.

        Raises:
            DecodeError: the sender is not authorized, or the message cannot be read.
        """


class Signatures:
    """Sign with the first key, and accept the signatures of all keys.

    A signature is the HMAC-SHA-256 of topic, key and value.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def close(self, message: Message) -> Message:
        return Message(
            message.topic,
            message.value,
            message.key,
            {**message.headers, SIGNATURE: signature(self._keys[0], message)},
        )

    def open(self, message: Message) -> Message:
        given = message.headers.get(SIGNATURE)
        if given is None:
            raise DecodeError("the message is not signed")
        # Every key is tried, so that the time that it takes reveals nothing.
        fits = [hmac.compare_digest(signature(key, message), given) for key in self._keys]
        if not any(fits):
            raise DecodeError(
                "the message was changed, or is signed by a key that is not configured here"
            )
        headers = {name: value for name, value in message.headers.items() if name != SIGNATURE}
        return Message(message.topic, message.value, message.key, headers)


def signature(key: bytes, message: Message) -> bytes:
    """Return the header of a signed message.

    Each part is preceded by its length, so that bytes cannot move from one part to the next.
    """
    parts = (message.topic.encode(), message.key.encode("utf-8", "surrogateescape"), message.value)
    text = b"".join((b"flowkit", FORM, *(b"%d:%b" % (len(part), part) for part in parts)))
    return FORM + b":" + hmac.digest(key, text, "sha256").hex().encode()


class Payloads:
    """Codec of the plugins for the values of messages."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def close(self, message: Message) -> Message:
        return Message(
            message.topic,
            self._plugins.encode_payload(message.value, _place(message)),
            message.key,
            message.headers,
        )

    def open(self, message: Message) -> Message:
        try:
            value = self._plugins.decode_payload(message.value, _place(message))
        except PayloadError as error:
            raise DecodeError(str(error)) from None
        return Message(message.topic, value, message.key, message.headers)


def _place(message: Message) -> str:
    return f"message/{message.topic}/{message.key}"


def sealed(bus: Bus, cfg: CommonConfig, plugins: Plugins) -> Bus:
    """Return the bus that this installation uses.

    Messages are encoded first and then signed, so that only signed messages are decoded.
    """
    seals: list[Seal] = []
    if plugins.encodes_payloads:
        seals.append(Payloads(plugins))
    if cfg.signing_keys:
        seals.append(Signatures([key.get_secret_value().encode() for key in cfg.signing_keys]))
    if not seals:
        return bus
    return SealedBus(
        bus,
        seals,
        plain={cfg.dead_letter_topic, cfg.changes_topic},
        room=ROOM_BYTES if plugins.encodes_payloads else 0,
    )


class SealedBus:
    """Bus around another bus, which seals messages and opens them.

    A message whose seal is broken is delivered as one that cannot be decoded, with the reason.
    """

    def __init__(
        self, bus: Bus, seals: Sequence[Seal], *, plain: Collection[str] = (), room: int = 0
    ) -> None:
        """Leave the messages of ``plain`` topics unchanged.

        They are the topic of dead letters, which contains messages as they were received, and that
        of changes, which other programs read.
        """
        self._bus = bus
        self._seals = tuple(seals)
        self._plain = frozenset(plain)
        self.max_message_bytes = bus.max_message_bytes - room
        self.places = bus.places
        self.key_affinity = bus.key_affinity
        self.replay_for_new_groups = bus.replay_for_new_groups

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._bus.__aexit__(*exc)

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        await self._bus.ensure_topics(topics)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        for message in messages:
            if len(message.value) > self.max_message_bytes:
                raise MessageTooLarge(
                    f"a message of {len(message.value)} bytes for {message.topic!r} is above"
                    f" {self.max_message_bytes}"
                )
        return await self._bus.publish(
            await uncancelled(lambda: [self._closed(message) for message in messages])
        )

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
        return await self._bus.outstanding(topic, group)

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe(topics, group, max_unacked)

    @asynccontextmanager
    async def _subscribe(
        self, topics: Sequence[str], group: str | None, max_unacked: int
    ) -> AsyncIterator[Subscription]:
        async with self._bus.subscribe(
            topics, group=group, max_unacked=max_unacked
        ) as subscription:
            yield _SealedSubscription(subscription, self)

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        return await self._bus.check(topics)

    def _closed(self, message: Message) -> Message:
        if message.topic not in self._plain:
            for seal in self._seals:
                message = seal.close(message)
        return message

    def opened(self, delivery: Delivery) -> Delivery:
        """Return the delivery with the message that was sent, or one that cannot be decoded."""
        sent = message = delivery.message
        if message.topic in self._plain:
            return delivery
        try:
            for seal in reversed(self._seals):
                message = seal.open(message)
        except DecodeError as error:
            message = Message(sent.topic, Refused(sent.value, str(error)), sent.key, sent.headers)
        return (
            delivery
            if message is sent
            else Delivery(message, delivery.partition, delivery.position, _Sealed(delivery))
        )


class _Sealed:
    """Handle of an opened delivery: the delivery of the bus."""

    __slots__ = ("delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery


def as_sent(delivery: Delivery) -> Message:
    """Return the message as it was on the bus, sealed if it was."""
    return (
        delivery.handle.delivery.message
        if isinstance(delivery.handle, _Sealed)
        else delivery.message
    )


def _as_delivered(deliveries: Collection[Delivery]) -> list[Delivery]:
    return [
        delivery.handle.delivery if isinstance(delivery.handle, _Sealed) else delivery
        for delivery in deliveries
    ]


class _SealedSubscription:
    """Subscription that opens the messages that it receives.

    No cancellation is raised between a receive and its return, so that a cancelled receive loses no
    message.
    """

    def __init__(self, subscription: Subscription, bus: SealedBus) -> None:
        self._subscription = subscription
        self._bus = bus

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        opened = [
            self._bus.opened(delivery)
            for delivery in await self._subscription.receive(max_messages=max_messages)
        ]
        await undo_cancellation(postpone=True)
        return opened

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        await self._subscription.ack(_as_delivered(deliveries))

    async def release(self, deliveries: Collection[Delivery]) -> None:
        await self._subscription.release(_as_delivered(deliveries))

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        await self._subscription.reject(_as_delivered(deliveries), reason)


__all__ = [
    "SIGNATURE",
    "Payloads",
    "Seal",
    "SealedBus",
    "Signatures",
    "as_sent",
    "sealed",
    "signature",
]
