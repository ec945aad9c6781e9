"""The loops that listen: to the commands of the worker's roles, and to what every worker is
told.
"""

import logging
from collections.abc import Sequence

import anyio

from flowkit._runtime.backoff import Backoff
from flowkit._runtime.deadlines import within
from flowkit._runtime.outage_notices import notices_of
from flowkit.errors import BusUnavailable
from flowkit.protocols import Bus, Clock, Delivery, Subscription
from flowkit.worker._inbox import Inbox
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

LOOK_AHEAD = 8
"""Commands that are taken beyond the free slots, so that the most urgent of them can be begun
first.
"""
HOLD_SEC = 0.1
"""How long such commands wait for a slot before they are given to other workers."""


class CommandListener:
    """Takes commands while there are free slots, until it is told to stop."""

    def __init__(
        self,
        *,
        bus: Bus,
        topics: Sequence[str],
        group: str,
        max_concurrency: int,
        inbox: Inbox,
        slots: Slots,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._group = group
        # Twice the slots: those of the next round are taken while the reports of the last are on
        # their way.
        self._max_unacked = 2 * max_concurrency + LOOK_AHEAD
        self._inbox = inbox
        self._slots = slots
        self._clock = clock
        self._taking: anyio.CancelScope | None = None
        self._stopping = False
        self.ready = anyio.Event()

    def stop(self) -> None:
        """Take no more."""
        self._stopping = True
        if self._taking is not None:
            self._taking.cancel()

    async def listen(self) -> None:
        """The loop. It leaves the subscription when all that it took was acknowledged or given
        back.
        """
        if self._stopping:
            return
        async with self._bus.subscribe(
            self._topics, group=self._group, max_unacked=self._max_unacked
        ) as subscription:
            self.ready.set()
            while not self._stopping:
                await self._take_some(subscription)
            await self._inbox.hand_over_waiting()
            await self._inbox.wait_until_acknowledged()

    async def _take_some(self, subscription: Subscription) -> None:
        if self._slots.excess and not await within(
            HOLD_SEC, self._until_all_have_slots, clock=self._clock
        ):
            await self._inbox.hand_over_waiting()
        deliveries: Sequence[Delivery] = ()
        with anyio.CancelScope() as self._taking:
            if self._stopping:
                return
            await self._slots.wait_until(lambda slots: slots.free > 0)
            deliveries = await receive(
                subscription, self._slots.free + LOOK_AHEAD, clock=self._clock
            )
        self._taking = None
        await self._inbox.accept(subscription, deliveries)

    async def _until_all_have_slots(self) -> None:
        await self._slots.wait_until(lambda slots: slots.excess == 0)


class ControlListener:
    """Hears cancels and hints."""

    def __init__(self, *, bus: Bus, topic: str, inbox: Inbox, clock: Clock) -> None:
        self._bus = bus
        self._topic = topic
        self._inbox = inbox
        self._clock = clock
        self.ready = anyio.Event()

    async def listen(self) -> None:
        """The loop."""
        async with self._bus.subscribe([self._topic], group=None) as subscription:
            self.ready.set()
            while True:
                self._inbox.heed(await receive(subscription, 1000, clock=self._clock))


async def receive(
    subscription: Subscription, max_messages: int, *, clock: Clock
) -> Sequence[Delivery]:
    """Receive, going on where the bus was out of reach."""
    backoff, notices = Backoff(), notices_of(clock)
    while True:
        try:
            deliveries = await subscription.receive(max_messages=max_messages)
            notices.over(logger, "receive")
            return deliveries
        except BusUnavailable as error:
            notices.trouble(
                logger,
                "receive",
                "The worker cannot receive from the bus",
                error,
                action="worker_retries",
            )
            await clock.sleep(backoff.next_sec())
