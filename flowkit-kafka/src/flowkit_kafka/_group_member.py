"""A consumer that shares topics with the other members of a group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalStateError,
    KafkaError,
)
from aiokafka.structs import ConsumerRecord

from flowkit.adapters import Backoff, retry
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._errors import DRIVER_ERRORS
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics

logger = logging.getLogger(__name__)

_COMMIT_WAIT_SEC = 2.0
_COORDINATOR_PAUSE_SEC = 0.05


class GroupMember(SupervisedConsumer):
    """Shares topics with the other members of a group and commits what was acknowledged."""

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        inbox: Inbox,
        topics: Sequence[str],
        administration: Topics,
        group: str,
    ) -> None:
        super().__init__(servers, config, inbox, topics, administration)
        self._group = group
        self._commits: dict[str, asyncio.Task[None]] = {}
        """Running commits, by topic."""

    def group_settings(self) -> Mapping[str, Any]:
        config = self.config
        return {
            "group_id": self._group,
            "session_timeout_ms": round(config.session_timeout_sec * 1000),
            "heartbeat_interval_ms": round(config.heartbeat_interval_sec * 1000),
            "rebalance_timeout_ms": round(config.rebalance_timeout_sec * 1000),
        }

    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        # With topics in its constructor, the driver's ``start`` would wait for the rebalance.
        topics = [topic for topic in self.topics if topic not in self.denied] or self.topics
        retrieve_commit_errors(consumer)
        await self._wait_for_coordinator(consumer)
        consumer.subscribe(topics=topics, listener=Rebalances(self, consumer))

    async def _wait_for_coordinator(self, consumer: AIOKafkaConsumer) -> None:
        """Wait until the brokers have a coordinator for the group, or a part of the patience.

        At the first request for any group, the brokers create the topic of the groups' offsets, and
        have no coordinator until it exists. The driver would log that as an error. It meets all
        other errors itself.
        """
        with suppress(KafkaError), anyio.move_on_after(self.config.patience_sec / 2):
            await retry(
                lambda: consumer._client.coordinator_lookup(CoordinationType.GROUP, self._group),  # noqa: SLF001
                on=lambda error: isinstance(error, GroupCoordinatorNotAvailableError),
                sleep=anyio.sleep,
                backoff=Backoff(
                    first_sec=_COORDINATOR_PAUSE_SEC, longest_sec=_COORDINATOR_PAUSE_SEC
                ),
            )

    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Read denied topics again after their time.

        The driver itself notices new topics and partitions, and rebalances the group.
        """
        now = asyncio.get_running_loop().time()
        expired = [topic for topic, until in self.denied.items() if until <= now]
        for topic in expired:
            del self.denied[topic]
        if expired:
            await self.attach(consumer)

    def fetched(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """Do nothing: the committed offsets are the positions of a member."""

    def consumer_ended(self) -> None:
        self.inbox.forget()
        self.between_assignments = False

    async def stop(self) -> None:
        await super().stop()
        with anyio.CancelScope(shield=True):
            await self._cancel(list(self._commits.values()), None)

    # ------------------------------------------------------------ commits

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit the positions of each topic in a request of its own.

        The driver retries the positions of a missing topic without end.
        """
        missing = [
            task
            for topic, task in self._commits.items()
            if not consumer.partitions_for_topic(topic)
        ]
        await self._cancel(missing, consumer)
        self._start_commits(consumer, self.inbox.to_commit())
        await self._wait_for_commits()

    def _start_commits(
        self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]
    ) -> None:
        """Start the commits of topics that exist and have no running commit."""
        by_topic: dict[str, dict[TopicPartition, int]] = {}
        for partition, position in positions.items():
            by_topic.setdefault(partition.topic, {})[partition] = position
        for topic, of_topic in by_topic.items():
            if topic not in self._commits and consumer.partitions_for_topic(topic):
                task = self._commits[topic] = asyncio.create_task(self._commit(consumer, of_topic))
                task.add_done_callback(partial(self._commit_ended, topic))

    def _commit_ended(self, topic: str, task: asyncio.Task[None]) -> None:
        if self._commits.get(topic) is task:
            del self._commits[topic]

    async def _wait_for_commits(self) -> None:
        """Wait a moment for the running commits; a cancellation of the wait does not stop them."""
        if self._commits:
            await asyncio.wait(self._commits.values(), timeout=_COMMIT_WAIT_SEC)

    async def _commit(
        self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]
    ) -> None:
        try:
            # The driver retries a commit for ever. A single request of it ends before this limit.
            async with asyncio.timeout(1.5 * self.config.request_timeout_sec):
                await consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError):
            # The group rebalances: messages whose offsets were not committed are delivered again.
            logger.debug("Offsets of %s were not committed, the group rebalances", self._group)
        except DRIVER_ERRORS as error:
            self._report_failed_commit(error)
        else:
            self.notices.over(logger, "commit")
            self.inbox.committed(positions)

    def _report_failed_commit(self, error: BaseException) -> None:
        self.notices.trouble(
            logger,
            "commit",
            f"Offsets of {self._group} were not committed",
            repr(error),
            action="kafka_commit_failed",
        )

    async def _cancel(
        self, tasks: Collection[asyncio.Task[None]], consumer: AIOKafkaConsumer | None
    ) -> None:
        """Cancel commits, between their requests if possible.

        The driver does not report the outcome of a request whose commit was cancelled.
        """
        if not tasks:
            return
        with anyio.move_on_after(_COMMIT_WAIT_SEC):
            async with (
                consumer._coordinator._commit_lock if consumer is not None else nullcontext()  # noqa: SLF001
            ):
                for task in tasks:
                    task.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    # ------------------------------------------------------------ rebalances

    async def assigned(
        self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
    ) -> None:
        """Begin to deliver the messages of a new assignment."""
        self.between_assignments = False

    async def revoked(self, consumer: AIOKafkaConsumer) -> None:
        """Commit the acknowledged messages of an assignment that ends, then forget it."""
        with anyio.move_on_after(self.config.session_timeout_sec / 4):
            await self._wait_for_commits()
        # A delayed commit would be sent with the next generation. The brokers would accept it and
        # move the group back.
        await self._cancel(list(self._commits.values()), consumer)
        with anyio.move_on_after(self.config.session_timeout_sec / 4):
            self._start_commits(consumer, await self._ahead_of_the_group(consumer))
            await self._wait_for_commits()
        await self._cancel(list(self._commits.values()), consumer)
        self.inbox.forget()
        # Until the new assignment comes, the driver continues to fetch after the messages that were
        # just forgotten. If these were delivered, their acknowledgement would move the group past
        # messages that no member has processed.
        self.between_assignments = True

    async def _ahead_of_the_group(self, consumer: AIOKafkaConsumer) -> Mapping[TopicPartition, int]:
        """Return the positions to commit that are above those of the group.

        The brokers accept a commit without a generation from a member that was removed from the
        group, even if it moves the group back.
        """
        try:
            return {
                partition: position
                for partition, position in self.inbox.to_commit().items()
                if consumer.partitions_for_topic(partition.topic)
                and position > (await consumer.committed(partition) or 0)
            }
        except DRIVER_ERRORS as error:
            self._report_failed_commit(error)
            return {}


def retrieve_commit_errors(consumer: AIOKafkaConsumer) -> None:
    """Retrieve the errors of requests that continue after their commit was cancelled.

    The driver shields such a request and forgets it, so asyncio would report its error as never
    retrieved.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    request = coordinator._do_commit_offsets  # noqa: SLF001

    async def retrieving(*arguments: Any) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await request(*arguments)

    if not hasattr(request, "retrieves_errors"):
        retrieving.retrieves_errors = True  # type: ignore[attr-defined]
        coordinator._do_commit_offsets = retrieving  # noqa: SLF001


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """The driver's callbacks at a rebalance; those of a replaced consumer have no effect."""

    def __init__(self, member: GroupMember, consumer: AIOKafkaConsumer) -> None:
        self._member = member
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked and self._member.current is self._consumer:
            await self._member.revoked(self._consumer)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._member.current is self._consumer:
            await self._member.assigned(self._consumer, assigned)
        logger.info(
            "%d partitions of %s are assigned to this process",
            len(assigned),
            ", ".join(self._member.topics),
            extra={"action": "kafka_partitions_assigned"},
        )
