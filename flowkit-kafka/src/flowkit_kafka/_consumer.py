"""A consumer that is replaced when it dies, and what it feeds."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, TopicAuthorizationFailedError
from aiokafka.structs import ConsumerRecord

from flowkit._runtime.outage_notices import Notices
from flowkit.errors import BusError, BusUnavailable
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_closing import close_consumer
from flowkit_kafka._driver_start import start
from flowkit_kafka._errors import translated
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics

logger = logging.getLogger(__name__)

_POLL_MS = 1_000
_MAX_BACKOFF_SEC = 2.0
_TORN_DOWN_SEC = 0.4
_DENIED_SEC = 60.0
"""How long a topic that may not be read is left out, before it is tried again."""
# The driver would leave the group when nobody polls for this long. Here the caller may take as long
# as it likes: what he has is bounded, his silence says nothing, and heartbeats go on beside.
_NEVER_MS = 2**31 - 1


class SupervisedConsumer(ABC):
    """Keeps a consumer of the driver alive and puts what it fetches into an inbox.

    Some errors leave a consumer dead for good, and one whose fetching task has ended says nothing
    at all. So whatever a poll raises, or no sign of life for half as long as the configuration has
    patience, ends the consumer, and a new one takes its place.
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
        """Topics that this user may not read, and until when they are left out."""
        self.administration = administration
        self.notices = Notices(asyncio.get_running_loop().time)
        self._looked_for_topics = 0.0
        self.current: AIOKafkaConsumer | None = None
        self._servers = list(servers)
        self._running: asyncio.Task[None] | None = None
        self._last_sign = self._begun = asyncio.get_running_loop().time()
        self._last_poll_stamp = 0
        self._trouble: BaseException | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.between_assignments = False
        """Set while the driver still fetches for an assignment that is over: that comes again,
        after what was forgotten with it.
        """
        self._stopping = False

    @abstractmethod
    def group_settings(self) -> Mapping[str, Any]:
        """What a consumer of this kind needs beside the common settings."""

    @abstractmethod
    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        """Tell a consumer that has just connected what to read."""

    @abstractmethod
    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Look after what is read, every few moments."""

    @abstractmethod
    def took(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """See what goes into the inbox."""

    @abstractmethod
    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Say how far the group is done, if there is anything to say."""

    @abstractmethod
    def lost(self) -> None:
        """The consumer is gone, and with it what it had been given to read."""

    # ------------------------------------------------------------ life

    def start(self) -> None:
        self._running = asyncio.create_task(
            self._run(), name=f"kafka consumer of {', '.join(self.topics)}"
        )

    async def stop(self) -> None:
        """Commit, leave the group and close; within the time limit of the configuration."""
        if self._running is not None:
            self._stopping = not self._running.cancelling()
            self._running.cancel()
        with anyio.CancelScope(shield=True):
            if self._running is not None:
                await asyncio.wait([self._running])
            if self._closing:
                await asyncio.wait(self._closing)

    def check(self) -> None:
        """Raise if there has been no sign of the brokers for too long.

        Raises:
            BusUnavailable: there was none.
        """
        silence = asyncio.get_running_loop().time() - self._last_sign
        if silence < self.config.patience_sec:
            return
        doing = f"receiving from {', '.join(self.topics)}, for {silence:.0f} s"
        if self._trouble is not None:
            raise translated(self._trouble, doing)
        raise BusUnavailable(f"{doing}: the brokers do not answer")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = 0.1
        while True:
            self._begun = loop.time()
            try:
                await self._live()
            except TopicAuthorizationFailedError as error:
                self._trouble = error
                denied = _names_in(error)
                topics = [topic for topic in self.topics if topic in denied]
                self.denied |= dict.fromkeys(topics, loop.time() + _DENIED_SEC)
                self.notices.trouble(
                    logger,
                    "denied",
                    f"Topics that this user may not read are left out: {', '.join(topics)}",
                    action="kafka_topic_denied",
                )
            except Exception as error:
                self._trouble = error
                self.notices.trouble(
                    logger,
                    "consumer",
                    f"The consumer of {', '.join(self.topics)} is replaced",
                    repr(error),
                    action="kafka_consumer_replaced",
                )
            lived = loop.time() - self._begun
            backoff = (
                0.1 if lived > self.config.patience_sec else min(2 * backoff, _MAX_BACKOFF_SEC)
            )
            await asyncio.sleep(backoff)

    async def _live(self) -> None:
        """The life of one consumer of the driver. Ends by an error or by being cancelled."""
        consumer = self.current = self._new_consumer()
        try:
            await start(consumer.start)
            await self.attach(consumer)
            await _first_to_end(self._poll(consumer), self._keep(consumer))
        finally:
            limit_sec = self._time_to_close()
            try:
                with anyio.move_on_after(limit_sec / 4, shield=True):
                    await self.commit(consumer)
            finally:
                self.current = None
                self.lost()
                self._close(consumer, limit_sec)

    def _time_to_close(self) -> float:
        task = asyncio.current_task()
        if task is not None and task.cancelling() and not self._stopping:
            # Not told to stop but cancelled, as at the end of asyncio.run: the driver's own tasks
            # are cancelled as well, and nobody is left to read what the brokers answer.
            return _TORN_DOWN_SEC
        return self.config.close_timeout_sec

    def _new_consumer(self) -> AIOKafkaConsumer:
        config = self.config
        settings: dict[str, Any] = {**config.connection(), **self.group_settings()}
        # No deserializers: where one raises, the driver drops records of other partitions that it
        # had already taken.
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

    # ------------------------------------------------------------ work

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Fetch as much as there is room for. What is not asked for waits in the driver, which then
        fetches no more of its partition.
        """
        inbox = self.inbox
        while True:
            if not inbox.room:
                await inbox.has_room.wait()
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=inbox.room)
            if fetched:
                self._alive()
                if self.between_assignments:
                    continue
                self.took(fetched)
                inbox.put(fetched)

    async def _keep(self, consumer: AIOKafkaConsumer) -> None:
        """Commit lazily, look for new partitions, and notice when nothing is heard any more."""
        while True:
            await asyncio.sleep(self.config.commit_interval_sec)
            await self.commit(consumer)
            await self.refresh(consumer)
            await self._restore(consumer)
            await self._listen(consumer)
            if self._silence() > self.config.patience_sec / 2:
                raise TimeoutError(f"no answer from the brokers for {self._silence():.1f} s")
            if self._trouble is None:
                self.notices.over(logger, "consumer")

    async def _restore(self, consumer: AIOKafkaConsumer) -> None:
        """Create topics again that were deleted. The driver sees new ones by itself, when it next
        asks for metadata.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked_for_topics < self.config.metadata_max_age_sec:
            return
        self._looked_for_topics = now
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

    async def _listen(self, consumer: AIOKafkaConsumer) -> None:
        """Look for a sign of life: an answered fetch, also an empty one, or, where nothing is
        fetched, an answer about topics.
        """
        assigned = consumer.assignment()
        stamps = [
            stamp for partition in assigned if (stamp := consumer.last_poll_timestamp(partition))
        ]
        stamp = max(stamps, default=0)
        if stamp != self._last_poll_stamp:
            self._last_poll_stamp = stamp
            self._alive()
        elif not self.inbox.room:
            self._alive()
        elif not assigned and self._silence() > self.config.patience_sec / 4:
            with anyio.move_on_after(self.config.patience_sec / 4):
                await consumer.topics()
                self._alive()

    def _silence(self) -> float:
        """Seconds without a sign in the life of this consumer."""
        return asyncio.get_running_loop().time() - max(self._last_sign, self._begun)

    def _alive(self) -> None:
        self._last_sign = asyncio.get_running_loop().time()
        self._trouble = None


async def _first_to_end(*endless: Coroutine[Any, Any, None]) -> None:
    """Run what never ends by itself side by side, and raise what ended one of them."""
    tasks = [asyncio.create_task(each) for each in endless]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks)
    for task in ended:
        # The driver may hand us the cancellation of one of its own tasks, which is not ours.
        if task.cancelled():
            raise IllegalStateError("a task of the driver was cancelled")
        task.result()


def _names_in(error: TopicAuthorizationFailedError) -> set[str]:
    """Return the topics that an error names: the driver gives one name, or a collection of
    names.
    """
    return {
        name
        for argument in error.args
        for name in ([argument] if isinstance(argument, str) else argument)
    }
