"""Subscription of :meth:`KafkaBus.subscribe`, and the events of a source of triggers."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from flowkit.protocols import Delivery
from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._inbox import Inbox

Park = Callable[[Sequence[Delivery], str], Awaitable[None]]


class KafkaEvents:
    """An :class:`~flowkit.protocols.EventStream` over an inbox that a consumer fills."""

    def __init__(self, inbox: Inbox, consumer: SupervisedConsumer) -> None:
        self._inbox = inbox
        self._consumer = consumer

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        # Let other tasks run even when the inbox is never empty. Nothing is awaited between taking
        # messages and returning them, so a cancellation loses none.
        await asyncio.sleep(0)
        while True:
            given = self._inbox.take(max_messages)
            if given:
                return given
            try:
                async with asyncio.timeout(self._consumer.config.patience_sec):
                    await self._inbox.ready.wait()
            except TimeoutError:
                self._consumer.check()

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        self._inbox.acknowledge(deliveries)


class KafkaSubscription(KafkaEvents):
    """A :class:`~flowkit.protocols.Subscription` over an inbox that a consumer fills."""

    def __init__(self, inbox: Inbox, consumer: SupervisedConsumer, park: Park) -> None:
        super().__init__(inbox, consumer)
        self._park = park

    async def release(self, deliveries: Collection[Delivery]) -> None:
        self._inbox.release(deliveries)

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        mine = self._inbox.live(deliveries)
        if mine:
            await self._park(mine, reason)
            self._inbox.acknowledge(mine)
