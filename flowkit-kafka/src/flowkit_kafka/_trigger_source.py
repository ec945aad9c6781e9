"""Topics of Kafka as sources of triggers."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial

from flowkit.config import CommonConfig
from flowkit.errors import ConfigError, TopicUnavailable
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._group_offsets import GroupOffsets
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._source_address import SourceAddress
from flowkit_kafka._source_reader import SourceReader
from flowkit_kafka._subscription import KafkaEvents
from flowkit_kafka._topics import Topics

MAX_UNACKED = 1_000


class KafkaTriggerSource:
    """A :class:`~flowkit.protocols.TriggerSource`: a topic of Kafka, whose records are the events.

    It uses the settings of the bus, ``options.kafka``.
    """

    def __init__(self, address: str, config: CommonConfig) -> None:
        """Check address and settings.

        Raises:
            ConfigError: the address, or a field of ``config.options["kafka"]``, is wrong, or the
                topic is one of FlowKit's own.
        """
        self._config = KafkaConfig.of(config)
        self._config.connection()
        self._address = SourceAddress.parse(address)
        if config.owns_topic(self._address.topic):
            raise ConfigError(
                f"source: {self._address.topic!r} is a topic of this FlowKit installation, whose"
                " messages are its own"
            )

    @asynccontextmanager
    async def subscribe(self, group: str, *, since: float) -> AsyncIterator[KafkaEvents]:
        address = self._address
        inbox = Inbox(max_unacked=MAX_UNACKED, capacity=self._config.prefetch)
        reader = SourceReader(
            address.servers,
            self._config,
            inbox,
            address.topic,
            SourceTopics(address.servers, self._config),
            group,
            positions=partial(self._outstanding, group, since),
        )
        reader.start()
        try:
            yield KafkaEvents(inbox, reader)
        finally:
            await reader.stop()

    async def behind(self, group: str, *, since: float) -> int:
        found = await self._outstanding(group, since)
        if not found:
            raise TopicUnavailable(_missing([self._address.topic]))
        return sum(end - first for first, end in found.values())

    async def _outstanding(self, group: str, since: float) -> Mapping[int, tuple[int, int]]:
        address = self._address
        offsets = GroupOffsets(address.servers, self._config)
        try:
            return await offsets.outstanding(
                address.topic, group, since=None if address.from_beginning else since
            )
        finally:
            await offsets.close()


class SourceTopics(Topics):
    """Topics of sources, which FlowKit reads and never creates."""

    async def restore(self, names: Collection[str]) -> None:
        """Refuse to create a topic.

        Raises:
            TopicUnavailable: always.
        """
        raise TopicUnavailable(_missing(names))


def _missing(names: Collection[str]) -> str:
    return (
        f"topic {', '.join(names)} does not exist, or this user may not read it; FlowKit waits for"
        " it, and creates no topics for triggers"
    )
