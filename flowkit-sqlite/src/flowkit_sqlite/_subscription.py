"""Subscription of :meth:`SqliteBus.subscribe`."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from flowkit.protocols import Delivery
from flowkit_sqlite._consumer import Consumer
from flowkit_sqlite._inbox import Inbox

Park = Callable[[Sequence[Delivery], str], Awaitable[None]]


class SqliteSubscription:
    """A :class:`~flowkit.protocols.Subscription` over an inbox that a consumer fills."""

    def __init__(self, inbox: Inbox, consumer: Consumer, park: Park) -> None:
        self._inbox = inbox
        self._consumer = consumer
        self._park = park

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        # Let other tasks run even when the inbox is never empty. Nothing is awaited between taking
        # messages and returning them, so a cancellation loses none.
        ready = self._inbox.ready
        await (asyncio.sleep(0) if ready.is_set() else ready.wait())
        while not (given := self._inbox.take(max_messages)):
            await ready.wait()
        self._consumer.taken()
        return given

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        self._inbox.acknowledge(deliveries)
        self._consumer.acknowledged()

    async def release(self, deliveries: Collection[Delivery]) -> None:
        self._inbox.release(deliveries)

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        mine = self._inbox.live(deliveries)
        if mine:
            await self._park(mine, reason)
            await self.ack(mine)
