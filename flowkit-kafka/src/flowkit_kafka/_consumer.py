"""A consumer that is replaced when it fails, and that fills an inbox."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, TopicAuthorizationFailedError
from aiokafka.structs import ConsumerRecord

from flowkit.adapters import Backoff, Notices, retry
from flowkit.errors import BusError
from flowkit_kafka._broker_contact import BrokerContact
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_lifecycle import close_consumer, start
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics

logger = logging.getLogger(__name__)

_POLL_MS = 1_000
_MIN_BACKOFF_SEC = 0.1
_MAX_BACKOFF_SEC = 2.0
_CANCELLED_CLOSE_SEC = 0.4
_DENIED_SEC = 60.0
"""Time for which a topic that this user may not read is left out, before the next try."""
_NEVER_MS = 2**31 - 1
"""Poll interval after which the driver leaves the group.

The caller may take any time: its messages are bounded, and heartbeats do not depend on polls.
"""


class SupervisedConsumer(ABC):
    """Keeps a consumer of the driver alive and puts the fetched messages into an inbox.

    Some errors leave a consumer of the driver unusable, and one whose fetching task has ended
    reports nothing. So any error of a poll, or silence of the brokers for half the configured
    patience, ends the consumer, and a new one replaces it.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        inbox: Inbox,
        topics: Sequence[str],
        administration: Topics,
    ) -> None:
        self.config = config
        self.inbox = inbox
        self.topics = list(topics)
        self.denied: dict[str, float] = {}
        """Topics that this user may not read, and the time until which they are left out."""
        self.administration = administration
        self.notices = Notices(asyncio.get_running_loop().time)
        self.current: AIOKafkaConsumer | None = None
        self.between_assignments = False
        """True while the driver still fetches for an assignment that has ended.

        Those messages are fetched again in the next assignment.
        """
        self._servers = list(servers)
        self._contact = BrokerContact(self.topics, config.patience_sec)
        self._checked_topics_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = False

    @abstractmethod
    def group_settings(self) -> Mapping[str, Any]:
        """Return the driver's settings that only this kind of consumer has."""

    @abstractmethod
    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        """Subscribe or assign a consumer that has just connected."""

    @abstractmethod
    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Update the topics and partitions that are read; called every commit interval."""

    @abstractmethod
    def fetched(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """Record the messages that go into the inbox."""

    @abstractmethod
    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit the offsets that have changed."""

    @abstractmethod
    def consumer_ended(self) -> None:
        """Handle the end of the consumer, which also ends its assignment."""

    # ------------------------------------------------------------ life cycle

    def start(self) -> None:
        self._running = asyncio.create_task(
            self._run(), name=f"kafka consumer of {', '.join(self.topics)}"
        )

    async def stop(self) -> None:
        """Commit, leave the group and close, within the configured time limit."""
        if self._running is not None:
            self._stopping = not self._running.cancelling()
            self._running.cancel()
        with anyio.CancelScope(shield=True):
            if self._running is not None:
                await asyncio.wait([self._running])
            if self._closing:
                await asyncio.wait(self._closing)

    def check(self) -> None:
        """Raise an error if the brokers have been silent for longer than the patience.

        Raises:
            BusUnavailable: they have been.
        """
        self._contact.check()

    async def _run(self) -> None:
        backoff = Backoff(first_sec=_MIN_BACKOFF_SEC, longest_sec=_MAX_BACKOFF_SEC)

        def note(error: Exception) -> None:
            self._note_failure(error)
            if self._contact.lifetime_sec > self.config.patience_sec:
                backoff.reset()

        await retry(
            self._consume, on=lambda _: True, sleep=asyncio.sleep, backoff=backoff, on_retry=note
        )

    def _note_failure(self, error: Exception) -> None:
        self._contact.error = error
        if isinstance(error, TopicAuthorizationFailedError):
            self._leave_out(_topics_in(error))
        else:
            self.notices.trouble(
                logger,
                "consumer",
                f"The consumer of {', '.join(self.topics)} failed and is replaced",
                repr(error),
                action="kafka_consumer_replaced",
            )

    def _leave_out(self, denied: set[str]) -> None:
        topics = [topic for topic in self.topics if topic in denied]
        until = asyncio.get_running_loop().time() + _DENIED_SEC
        self.denied |= dict.fromkeys(topics, until)
        self.notices.trouble(
            logger,
            "denied",
            f"The user may not read these topics, which are left out: {', '.join(topics)}",
            action="kafka_topic_denied",
        )

    async def _consume(self) -> None:
        """Run one consumer of the driver until it fails or this is cancelled."""
        self._contact.begin()
        consumer = self.current = self._new_consumer()
        try:
            await start(consumer.start)
            await self.attach(consumer)
            await _until_one_ends(self._poll(consumer), self._maintain(consumer))
        finally:
            limit_sec = self._close_limit_sec()
            try:
                with anyio.move_on_after(limit_sec / 4, shield=True):
                    await self.commit(consumer)
            finally:
                self.current = None
                self.consumer_ended()
                self._close(consumer, limit_sec)

    def _close_limit_sec(self) -> float:
        task = asyncio.current_task()
        if task is not None and task.cancelling() and not self._stopping:
            # Cancelled without a call of ``stop``, as at the end of asyncio.run: the driver's own
            # tasks are cancelled as well, so the answers of the brokers are no longer read.
            return _CANCELLED_CLOSE_SEC
        return self.config.close_timeout_sec

    def _new_consumer(self) -> AIOKafkaConsumer:
        config = self.config
        settings: dict[str, Any] = {**config.connection(), **self.group_settings()}
        # No deserializers: when one fails, the driver loses records of other partitions that it had
        # already taken from its buffer.
        return AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=_NEVER_MS,
            max_partition_fetch_bytes=max(1_048_576, config.max_message_bytes),
            request_timeout_ms=round(config.request_timeout_sec * 1000),
            **settings,
        )

    def _close(self, consumer: AIOKafkaConsumer, limit_sec: float) -> None:
        task = asyncio.create_task(close_consumer(consumer, limit_sec))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # ------------------------------------------------------------ messages

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Fetch as many messages as the inbox has room for.

        The others wait in the driver, which then fetches no more of their partitions.
        """
        inbox = self.inbox
        while True:
            if not inbox.room:
                await inbox.has_room.wait()
            records = await consumer.getmany(timeout_ms=_POLL_MS, max_records=inbox.room)
            if records:
                self._contact.answered()
                if self.between_assignments:
                    continue
                self.fetched(records)
                inbox.put(records)

    async def _maintain(self, consumer: AIOKafkaConsumer) -> None:
        """Commit offsets, refresh topics and raise when the brokers are silent."""
        while True:
            await asyncio.sleep(self.config.commit_interval_sec)
            await self.commit(consumer)
            await self.refresh(consumer)
            await self._restore_topics(consumer)
            await self._check_contact(consumer)
            silence = self._contact.silence_sec
            if silence > self.config.patience_sec / 2:
                raise TimeoutError(f"no answer from the brokers for {silence:.1f} s")
            if self._contact.error is None:
                self.notices.over(logger, "consumer")

    async def _restore_topics(self, consumer: AIOKafkaConsumer) -> None:
        """Create deleted topics again; the driver finds them at its next request for metadata."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_topics_at < self.config.metadata_max_age_sec:
            return
        self._checked_topics_at = now
        missing = [
            topic
            for topic in self.topics
            if topic not in self.denied and not consumer.partitions_for_topic(topic)
        ]
        if not missing:
            self.notices.over(logger, "missing")
            return
        try:
            await self.administration.restore(missing)
        except BusError as error:
            self.notices.trouble(
                logger,
                "missing",
                f"Topics cannot be read: {', '.join(missing)}",
                error,
                action="kafka_topic_missing",
            )

    async def _check_contact(self, consumer: AIOKafkaConsumer) -> None:
        """Record an answered fetch; ask about topics if nothing can be fetched."""
        fetch_answered = self._contact.fetched(consumer)
        if fetch_answered or not self.inbox.room:
            self._contact.answered()
        elif not consumer.assignment() and self._contact.silence_sec > self.config.patience_sec / 4:
            with anyio.move_on_after(self.config.patience_sec / 4):
                await consumer.topics()
                self._contact.answered()


async def _until_one_ends(*endless: Coroutine[Any, Any, None]) -> None:
    """Run endless coroutines side by side and raise the error that ended one of them."""
    tasks = [asyncio.create_task(each) for each in endless]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks)
    for task in ended:
        # The driver may pass on the cancellation of one of its own tasks, which is not ours.
        if task.cancelled():
            raise IllegalStateError("a task of the driver was cancelled")
        task.result()


def _topics_in(error: TopicAuthorizationFailedError) -> set[str]:
    """Return the topics that an error names; the driver gives one name or a collection."""
    return {
        name
        for argument in error.args
        for name in ([argument] if isinstance(argument, str) else argument)
    }
