"""Deliveries of the changes of tasks to a receiver.

The messages of the topic are acknowledged when the receiver has accepted them. So what is not
delivered is in the topic, and a process that is started again continues there. Each webhook reads
the topic in a group of its own, so a receiver that is away holds up no other. A change that is
given up is kept as a dead letter.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from flowkit.adapters import Backoff, Notices, retry
from flowkit.cli.verbs import WebhookLetters
from flowkit.errors import BusError, StoreUnavailable
from flowkit.protocols import Bus, Clock, Delivery, Subscription
from flowkit_web._webhook_config import WebhookConfig, key_of
from flowkit_web._webhook_requests import NotDelivered
from flowkit_web._webhook_signatures import webhook_headers

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_UNACKED = 1_000
"""Changes that a process holds for a receiver at most."""
PAUSE_SEC = 1.0


class Post(Protocol):
    """Function that posts a body with these headers, or raises :class:`NotDelivered`."""

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> Awaitable[None]: ...


class _Received(NamedTuple):
    delivery: Delivery
    at: float
    """Time by the monotonic clock."""


def group_of(namespace: str, name: str) -> str:
    """Return the group in which a webhook reads the topic of changes."""
    return f"{namespace}.webhook.{name}"


class WebhookDeliveries:
    """Delivers the changes of each task in order, and those of several tasks at the same time."""

    def __init__(
        self,
        config: WebhookConfig,
        *,
        bus: Bus,
        topic: str,
        group: str,
        clock: Clock,
        letters: WebhookLetters,
    ) -> None:
        self._name = letters.webhook
        self._config = config
        self._keys = [key_of(secret.get_secret_value()) for secret in config.secrets]
        self._bus = bus
        self._topic = topic
        self._group = group
        self._clock = clock
        self._letters = letters
        self._notices = Notices(clock.monotonic)
        self._slots = anyio.Semaphore(config.max_parallel)
        self._queues: dict[str, deque[_Received]] = {}
        """Changes to deliver, by task."""

    async def run(self, post: Post) -> None:
        """Deliver changes until cancelled."""
        async with (
            self._bus.subscribe(
                [self._topic], group=self._group, max_unacked=MOST_UNACKED
            ) as subscription,
            anyio.create_task_group() as group,
        ):
            while True:
                for delivery in await self._received(subscription):
                    self._add(delivery, subscription, post, group)

    async def _received(self, subscription: Subscription) -> Sequence[Delivery]:
        return await self._patiently(
            partial(subscription.receive, max_messages=100), "read the topic of changes"
        )

    def _add(
        self, delivery: Delivery, subscription: Subscription, post: Post, group: TaskGroup
    ) -> None:
        task_id = delivery.message.key
        queue = self._queues.get(task_id)
        if queue is None:
            queue = self._queues[task_id] = deque()
            group.start_soon(self._deliver_queue, task_id, queue, subscription, post)
        queue.append(_Received(delivery, self._clock.monotonic()))

    async def _deliver_queue(
        self, task_id: str, queue: deque["_Received"], subscription: Subscription, post: Post
    ) -> None:
        """Deliver the changes of a task, one after the other."""
        while queue:
            received = queue[0]
            delivery, refusal = received.delivery, None
            if not self._letters.is_for_another(delivery.message):
                refusal = await self._deliver(received, post)
                if refusal is None:
                    await self._patiently(
                        partial(self._letters.drop, delivery), "change its dead letters"
                    )
            done = (
                partial(subscription.ack, [delivery])
                if refusal is None
                else partial(subscription.reject, [delivery], refusal)
            )
            await self._patiently(done, "acknowledge changes")
            queue.popleft()
        del self._queues[task_id]

    async def _deliver(self, received: "_Received", post: Post) -> str | None:
        """Post a change until it is accepted. Return the last error if that takes too long, when
        the change is kept as a dead letter.
        """
        body = received.delivery.message.value
        give_up_at = received.at + self._config.retry_for_sec
        pauses = Backoff(longest_sec=self._config.longest_pause_sec, first_sec=PAUSE_SEC)
        while True:
            try:
                async with self._slots:
                    await post(body, webhook_headers(body, self._keys, self._clock.now()))
            except NotDelivered as error:
                self._notices.trouble(
                    logger,
                    "receiver",
                    f"Webhook {self._name} does not accept a change",
                    error,
                    action="webhook_refused",
                )
                if self._clock.monotonic() >= give_up_at:
                    reason = f"webhook {self._name}: {error}"
                    if await self._given_up(received, reason, error):
                        return reason
            else:
                self._notices.over(logger, "receiver")
                return None
            await self._clock.sleep(pauses.next_sec())

    async def _given_up(self, received: "_Received", reason: str, error: NotDelivered) -> bool:
        """Keep a change as a dead letter. Return False if the store is away: the change is posted
        again.
        """
        try:
            await self._letters.keep(received.delivery, reason)
        except StoreUnavailable as away:
            self._notices.trouble(
                logger,
                "letters",
                f"Webhook {self._name} cannot keep a change as a dead letter, and posts it again",
                away,
                action="letters_unavailable",
            )
            return False
        self._notices.over(logger, "letters")
        logger.error(
            "Webhook %s gives up a change of task %s, which is a dead letter now: %s",
            self._name,
            received.delivery.message.key,
            error,
            extra={"action": "webhook_gave_up", "webhook": self._name},
        )
        return True

    async def _patiently(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Return the result of a call, which is repeated while the bus or the store does not carry
        it out.
        """

        def log(error: Exception) -> None:
            self._notices.trouble(
                logger,
                what,
                f"Webhook {self._name} cannot {what}",
                error,
                action="webhook_waits",
            )

        result = await retry(
            call,
            on=lambda error: isinstance(error, (BusError, StoreUnavailable)),
            sleep=self._clock.sleep,
            monotonic=self._clock.monotonic,
            on_retry=log,
        )
        self._notices.over(logger, what)
        return result
