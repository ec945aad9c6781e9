"""A consumer that shares topics with the other members of a group."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import ConsumerRecord

from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._errors import DRIVER_ERRORS
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics

logger = logging.getLogger(__name__)

_SETTLE_SEC = 2.0


class GroupMember(SupervisedConsumer):
    """Shares topics with the other members of a group."""

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
        """Commits under way, by topic."""

    def group_settings(self) -> Mapping[str, Any]:
        config = self.config
        return {
            "group_id": self._group,
            "session_timeout_ms": round(config.session_timeout_sec * 1000),
            "heartbeat_interval_ms": round(config.heartbeat_interval_sec * 1000),
            "rebalance_timeout_ms": round(config.rebalance_timeout_sec * 1000),
        }

    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        # Topics that are given to the constructor would make ``start`` wait until the group is
        # shared out.
        topics = [topic for topic in self.topics if topic not in self.denied] or self.topics
        _own_commit_errors(consumer)
        consumer.subscribe(topics=topics, listener=_Rebalances(self, consumer))

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Commit the positions of each topic by themselves: the driver tries those of a missing
        topic again without end.
        """
        missing = [
            task
            for topic, task in self._commits.items()
            if not consumer.partitions_for_topic(topic)
        ]
        await self._cancel(missing, consumer)
        self._begin(consumer, self.inbox.to_commit())
        await self._settled()

    def _begin(self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
        """Begin the commits of topics that exist and have none under way."""
        by_topic: dict[str, dict[TopicPartition, int]] = {}
        for partition, position in positions.items():
            by_topic.setdefault(partition.topic, {})[partition] = position
        for topic, of_topic in by_topic.items():
            if topic not in self._commits and consumer.partitions_for_topic(topic):
                task = self._commits[topic] = asyncio.create_task(self._commit(consumer, of_topic))
                task.add_done_callback(partial(self._committed, topic))

    def _committed(self, topic: str, task: asyncio.Task[None]) -> None:
        if self._commits.get(topic) is task:
            del self._commits[topic]

    async def _settled(self) -> None:
        """Wait a moment for the commits under way. Whoever stops waiting does not stop them."""
        if self._commits:
            await asyncio.wait(self._commits.values(), timeout=_SETTLE_SEC)

    async def _commit(
        self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]
    ) -> None:
        try:
            # The driver tries again by itself for ever; a request of its own has ended before this
            # does.
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
        self.notices.trouble(
            logger,
            "commit",
            f"Offsets of {self._group} were not committed",
            repr(error),
            action="kafka_commit_failed",
        )

    async def stop(self) -> None:
        await super().stop()
        with anyio.CancelScope(shield=True):
            await self._cancel(list(self._commits.values()), None)

    async def _cancel(
        self, tasks: Collection[asyncio.Task[None]], consumer: AIOKafkaConsumer | None
    ) -> None:
        """Cancel commits, between their requests if that is possible: the driver would tell nobody
        how one under way ends.
        """
        if not tasks:
            return
        with anyio.move_on_after(_SETTLE_SEC):
            async with (
                consumer._coordinator._commit_lock if consumer is not None else nullcontext()  # noqa: SLF001
            ):
                for task in tasks:
                    task.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Try again to read topics that were denied. New topics and partitions are noticed by the
        driver, which rebalances the group.
        """
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
        # One that is still held up would be sent with the next generation, be accepted, and take
        # the group back.
        await self._cancel(list(self._commits.values()), consumer)
        with anyio.move_on_after(self.config.session_timeout_sec / 4):
            self._begin(consumer, await self._ahead_of_the_group(consumer))
            await self._settled()
        await self._cancel(list(self._commits.values()), consumer)
        self.inbox.forget()
        # The driver goes on fetching behind what was just forgotten until it has the new
        # assignment. Were that taken in, its acknowledgement would move the group past messages
        # that nobody has seen.
        self.between_assignments = True

    async def _ahead_of_the_group(self, consumer: AIOKafkaConsumer) -> Mapping[TopicPartition, int]:
        """What to commit unless others have gone further: a member that was shut out commits
        without a generation, and is believed.
        """
        try:
            return {
                partition: position
                for partition, position in self.inbox.to_commit().items()
                if consumer.partitions_for_topic(partition.topic)
                and position > (await consumer.committed(partition) or 0)
            }
        except DRIVER_ERRORS as error:
            self._complain(error)
            return {}


def _own_commit_errors(consumer: AIOKafkaConsumer) -> None:
    """Retrieve the errors of requests that go on when a commit is cancelled.

    The driver shields such a request and forgets it, so asyncio would report its error as never
    retrieved.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    request = coordinator._do_commit_offsets  # noqa: SLF001

    async def owned(*arguments: Any) -> None:
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await request(*arguments)

    if not hasattr(request, "owned"):
        owned.owned = True  # type: ignore[attr-defined]
        coordinator._do_commit_offsets = owned  # noqa: SLF001


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """What the driver calls when a group is shared out anew. Of a consumer that was replaced it
    means nothing any more.
    """

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
        logger.info(
            "%d partitions of %s are read here",
            len(assigned),
            names,
            extra={"action": "kafka_partitions_assigned"},
        )
