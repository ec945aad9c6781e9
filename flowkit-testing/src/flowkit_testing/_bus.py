"""In-memory bus with partitions, consumer groups, redelivery and rebalancing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from flowkit.adapters import Lifecycle, LifeState
from flowkit.errors import BusError, MessageTooLarge
from flowkit.protocols import CheckResult, Delivery, Message, Place, Subscription, TopicSpec
from flowkit_testing._broker import Broker, Listener, Member, acknowledge, give_back


class InMemoryBus:
    """:class:`~flowkit.protocols.Bus` in memory.

    Messages are assigned to ``partitions`` by their key, and members of a group own partitions.
    Messages that a member has not acknowledged are delivered to the next owner. Messages that all
    groups have acknowledged are deleted; messages published before a group exists are kept.


    The bus may be entered several times and used by several event loops, one after the other. As
    there is no connection, it can be used before it is entered. Buses with the same ``broker``
    share their messages.
    """

    def __init__(
        self,
        *,
        partitions: int = 8,
        dead_letter_topic: str = "flowkit.dlq",
        max_message_bytes: int = 1024 * 1024,
        auto_create: bool = True,
        create_topics: bool = True,
        places: bool = True,
        key_affinity: bool = True,
        replay_for_new_groups: bool = True,
        broker: Broker | None = None,
    ) -> None:
        """Create a bus. With ``auto_create``, a topic is created when it is first used.

        Without ``create_topics``, neither :meth:`ensure_topics` nor ``reject`` creates a topic. A
        ``broker`` has its own ``partitions``, ``places``, ``key_affinity`` and
        ``replay_for_new_groups``.
        """
        self.broker = broker or Broker(
            partitions=partitions,
            places=places,
            key_affinity=key_affinity,
            replay_for_new_groups=replay_for_new_groups,
        )
        self.places = self.broker.places
        self.key_affinity = self.broker.key_affinity
        self.replay_for_new_groups = self.broker.replay_for_new_groups
        self.dead_letter_topic = dead_letter_topic
        self.max_message_bytes = max_message_bytes
        self._auto_create = auto_create
        self._create_topics = create_topics
        self._life = Lifecycle[None]("the bus", error=BusError)
        self._entries = 0

    async def __aenter__(self) -> Self:
        if self._entries == 0:
            self._life.open(None)
        self._entries += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._entries -= 1
        if self._entries == 0:
            self._life.close()

    def _check_open(self) -> None:
        if self._life.state is LifeState.CLOSED:
            self._life.check_open()
        self.broker.check_reach()

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        self._check_open()
        for spec in topics:
            self._create(spec)

    def _create(self, spec: TopicSpec) -> None:
        if spec.name not in self.broker.topics and not self._create_topics:
            raise BusError(f"topic {spec.name!r} does not exist and may not be created")
        self.broker.create(spec)

    def _use(self, names: Collection[str]) -> None:
        for name in names:
            if self._auto_create and name not in self.broker.topics:
                self.broker.create(TopicSpec(name))

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self._check_open()
        for message in messages:
            if len(message.value) > self.max_message_bytes:
                size, limit = len(message.value), self.max_message_bytes
                raise MessageTooLarge(
                    f"a message of {size} bytes for {message.topic!r} is above the limit of {limit}"
                )
        self._use({message.topic for message in messages})
        places = self.broker.publish(messages)
        return places if self.places else [None] * len(places)

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
        self._check_open()
        return self.broker.outstanding(topic, group) if self.places else None

    def _park(self, deliveries: Collection[Delivery], reason: str) -> None:
        """Store dead letters.

        Raises:
            BusError: the dead-letter topic does not exist and may not be created.
        """
        self._create(TopicSpec(self.dead_letter_topic))
        self.broker.publish(
            [dead_letter(delivery, self.dead_letter_topic, reason) for delivery in deliveries]
        )

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe(topics, group, max_unacked)

    @asynccontextmanager
    async def _subscribe(
        self, topics: Sequence[str], group: str | None, max_unacked: int
    ) -> AsyncIterator[Subscription]:
        self._check_open()
        self._use(topics)
        subscription = _Subscription(self.broker, self._park)
        if group is None:
            listener = subscription.source = self.broker.listen(topics, wake=subscription.wake)
            try:
                yield subscription
            finally:
                self.broker.ignore(listener)
        else:
            member = subscription.source = self.broker.join(
                group, topics, max_unacked=max_unacked, wake=subscription.wake
            )
            try:
                yield subscription
            finally:
                self.broker.leave(member)

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        missing = [spec.name for spec in topics if spec.name not in self.broker.topics]
        found = CheckResult(
            "bus", True, f"in memory, {len(self.broker.topics)} topics; it ends with this process"
        )
        return [
            found,
            *(
                CheckResult(
                    f"topic {name}", False, "does not exist", "start a coordinator, which makes it"
                )
                for name in missing
            ),
        ]


class _Subscription:
    """Subscription of an :class:`InMemoryBus`."""

    source: Member | Listener

    def __init__(self, broker: Broker, park: Callable[[Collection[Delivery], str], None]) -> None:
        self._broker = broker
        self._park = park
        self._event: asyncio.Event | None = None

    def wake(self) -> None:
        if self._event is not None:
            self._event.set()

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        if self.source.has_more:
            # Let other tasks run before messages are taken. After that there is no cancellation
            # point, so no taken message is lost.
            await asyncio.sleep(0)
        self._broker.check_reach()
        while not (found := self.source.fetch(max_messages)):
            # The event belongs to the current event loop, so that the bus itself belongs to none.
            self._event = asyncio.Event()
            try:
                await self._event.wait()
            finally:
                self._event = None
            self._broker.check_reach()
        return found

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        self._broker.check_reach()
        acknowledge(deliveries)

    async def release(self, deliveries: Collection[Delivery]) -> None:
        self._broker.check_reach()
        give_back(deliveries)

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        self._broker.check_reach()
        self._park(deliveries, reason)
        acknowledge(deliveries)


def dead_letter(delivery: Delivery, topic: str, reason: str) -> Message:
    message = delivery.message
    origin = {
        "flowkit-reason": reason.encode(),
        "flowkit-topic": message.topic.encode(),
        "flowkit-partition": b"%d" % delivery.partition,
        "flowkit-position": b"%d" % delivery.position,
    }
    return Message(topic, message.value, message.key, {**message.headers, **origin})
