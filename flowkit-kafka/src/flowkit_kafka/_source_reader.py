"""A consumer that shares the records of a topic with the other readers of a trigger."""

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from flowkit.errors import BusError
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._group_member import GroupMember, Rebalances, retrieve_commit_errors
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics

logger = logging.getLogger(__name__)

Positions = Callable[[], Awaitable[Mapping[int, tuple[int, int]]]]


class SourceReader(GroupMember):
    """Member of a group that does not begin with the oldest record.

    It subscribes to a pattern: the driver then asks for all topics. If it named a topic that does
    not exist, some brokers would create it.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        inbox: Inbox,
        topic: str,
        administration: Topics,
        group: str,
        *,
        positions: Positions,
    ) -> None:
        """``positions`` returns the next position of the group and the end, by partition."""
        super().__init__(servers, config, inbox, [topic], administration, group)
        self._positions = positions
        self._assigned: Collection[TopicPartition] | None = None

    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        # The driver fetches as soon as it has an assignment, before the positions are known.
        self.between_assignments = True
        retrieve_commit_errors(consumer)
        pattern = rf"^{re.escape(self.topics[0])}\Z"
        consumer.subscribe(pattern=pattern, listener=Rebalances(self, consumer))

    async def assigned(
        self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
    ) -> None:
        """Let :meth:`refresh` find the positions. The driver takes part in no rebalance while this
        runs.
        """
        self._assigned = partitions
        self.between_assignments = True

    async def revoked(self, consumer: AIOKafkaConsumer) -> None:
        self._assigned = None
        await super().revoked(consumer)

    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        """Move to the positions of a new assignment, and commit them, so that they stay."""
        assigned = self._assigned
        if not assigned or not self.between_assignments:
            return
        try:
            found = await self._positions()
        except BusError as error:
            self.notices.trouble(
                logger,
                "positions",
                f"The positions in {self.topics[0]} are not known",
                error,
                action="kafka_positions_unknown",
            )
            return
        self.notices.over(logger, "positions")
        if self._assigned is not assigned or any(one.partition not in found for one in assigned):
            return
        positions = {one: found[one.partition][0] for one in assigned}
        for partition, position in positions.items():
            consumer.seek(partition, position)
        self.between_assignments = False
        await self._commit(consumer, positions)
