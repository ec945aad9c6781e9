"""A consumer that shares topics with the other members of a group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import ConsumerRecord

from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._errors import DRIVER_ERRORS
from flowkit_kafka._inbox import Inbox
from flowkit_kafka.config import KafkaConfig
from flowkit_kafka.topics import Topics

logger = logging.getLogger(__name__)


class GroupMember(SupervisedConsumer):
    """Shares topics with the other members of a group."""

    def __init__(
        self, servers: Sequence[str], config: KafkaConfig, inbox: Inbox, topics: Sequence[str], administration: Topics, group: str
    ) -> None:
        super().__init__(servers, config, inbox, topics, administration)
        self._group = group
        self._commits: set[asyncio.Task[None]] = set()

    def group_settings(self) -> Mapping[str, Any]:
        config = self.config
        return {
            "group_id": self._group,
            "session_timeout_ms": round(config.session_timeout_sec * 1000),
            "heartbeat_interval_ms": round(config.heartbeat_interval_sec * 1000),
            "rebalance_timeout_ms": round(config.rebalance_timeout_sec * 1000),
        }

    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        # Topics that are given to the constructor would make ``start`` wait until the group is shared out.
        topics = [topic for topic in self.topics if topic not in self.denied] or self.topics
        consumer.subscribe(topics=topics, listener=_Rebalances(self, consumer))

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        await self._settled()
        positions = self.inbox.to_commit()
        if positions:
            task = asyncio.create_task(self._commit(consumer, positions))
            self._commits.add(task)
            task.add_done_callback(self._commits.discard)
            await self._settled()

    async def _settled(self) -> None:
        """Wait for the commits under way. Whoever stops waiting does not stop them: the driver complains of what it had sent already."""
        if self._commits:
            await asyncio.wait(self._commits)

    async def _commit(self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
        try:
            # The driver tries again by itself for ever; a request of its own has ended before this does.
            async with asyncio.timeout(1.5 * self.config.request_timeout_sec):
                await consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError):
            # The group is being shared out anew: what was not committed comes again.
            logger.debug("Offsets of %s were not committed, the group changes", self._group)
        except DRIVER_ERRORS as error:
            self._complain(error)
        else:
            self.notices.over(logger, "commit")
            self.inbox.committed(positions)

    def _complain(self, error: BaseException) -> None:
        self.notices.trouble(logger, "commit", f"Offsets of {self._group} were not committed", repr(error), action="kafka_commit_failed")

    async def stop(self) -> None:
        await super().stop()
        with anyio.CancelScope(shield=True):
            await self._cancel_commits()

    async def _cancel_commits(self) -> None:
        for task in self._commits:
            task.cancel()
        await self._settled()

    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Try again to read topics that were denied. New topics and partitions are noticed by the driver, which rebalances the group."""
        now = asyncio.get_running_loop().time()
        expired = [topic for topic, until in self.denied.items() if until <= now]
        for topic in expired:
            del self.denied[topic]
        if expired:
            await self.attach(consumer)

    def took(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """Where to go on is known by what is committed."""

    def lost(self) -> None:
        self.inbox.forget()
        self.between_assignments = False

    async def revoked(self, consumer: AIOKafkaConsumer) -> None:
        """Commit what is done while the partitions are still ours, then forget them."""
        with anyio.move_on_after(self.config.session_timeout_sec / 4):
            await self._settled()
        # One that is still held up would be sent with the next generation, be accepted, and take the group back.
        await self._cancel_commits()
        with anyio.move_on_after(self.config.session_timeout_sec / 4):
            await self._last_commit(consumer)
        self.inbox.forget()
        # The driver goes on fetching behind what was just forgotten until it has the new assignment. Were that taken in, its
        # acknowledgement would move the group past messages that nobody has seen.
        self.between_assignments = True

    async def _last_commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit unless others have gone further: a member that was shut out commits without a generation, and is believed."""
        try:
            positions = {
                partition: position
                for partition, position in self.inbox.to_commit().items()
                if position > (await consumer.committed(partition) or 0)
            }
        except DRIVER_ERRORS as error:
            self._complain(error)
            return
        if positions:
            await self._commit(consumer, positions)


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """What the driver calls when a group is shared out anew. Of a consumer that was replaced it means nothing any more."""

    def __init__(self, member: GroupMember, consumer: AIOKafkaConsumer) -> None:
        self._member = member
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked and self._member.current is self._consumer:
            await self._member.revoked(self._consumer)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._member.current is self._consumer:
            self._member.between_assignments = False
        names = ", ".join(self._member.topics)
        logger.info("%d partitions of %s are read here", len(assigned), names, extra={"action": "kafka_partitions_assigned"})
