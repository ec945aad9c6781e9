"""Topics: what there is, what is missing, and how a new one is made."""

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from flowkit.errors import BusError, BusUnavailable, TopicUnavailable
from flowkit.protocols import TopicSpec
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_start import start
from flowkit_kafka._errors import DRIVER_ERRORS, translated
from flowkit_kafka._producer import OVERHEAD_BYTES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers describe it."""

    name: str
    partitions: int
    replication: int
    leaderless: int
    """Partitions that nobody leads at the moment, which can be neither written nor read."""


class Topics:
    """What an installation asks the brokers about topics. Each question has a connection of its
    own, for they are rare.
    """

    def __init__(self, servers: Sequence[str], config: KafkaConfig) -> None:
        self._servers = list(servers)
        self._config = config
        self._needed: dict[str, TopicSpec] = {}
        """Topics that must exist, by name."""
        self._restoring = anyio.Lock()

    def need(self, specs: Sequence[TopicSpec]) -> None:
        """Remember topics that :meth:`restore` creates again."""
        self._needed |= {spec.name: spec for spec in specs}

    async def restore(self, names: Collection[str]) -> None:
        """Create those of the needed topics that were deleted. Other names are ignored.

        Raises:
            TopicUnavailable: one may not be created.
            BusUnavailable: the brokers cannot be reached.
        """
        specs = [self._needed[name] for name in names if name in self._needed]
        if not specs:
            return
        async with self._restoring:
            try:
                await self.ensure(specs)
            except BusUnavailable:
                raise
            except BusError as error:
                raise TopicUnavailable(str(error)) from error

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A connected admin client.

        Raises:
            BusUnavailable: the brokers cannot be reached, or refuse.
        """
        client = AIOKafkaAdminClient(
            bootstrap_servers=self._servers,
            request_timeout_ms=round(self._config.request_timeout_sec * 1000),
            **self._config.connection(),
        )
        try:
            with anyio.fail_after(self._config.patience_sec):
                await start(client.start)
                yield client
        except DRIVER_ERRORS as error:
            raise translated(error, f"asking {', '.join(self._servers)} about topics") from error
        finally:
            with anyio.move_on_after(self._config.close_timeout_sec, shield=True):
                await client.close()

    async def existing(self, names: Collection[str]) -> dict[str, Topic]:
        """Those of ``names`` that exist, by name."""
        async with self.admin() as admin:
            return await described(admin, names)

    async def ensure(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist, where that is allowed.

        Raises:
            BusError: a topic does not exist and may not be created; the message names each.
            BusUnavailable: the brokers cannot be reached.
        """
        self.need(specs)
        wanted = {spec.name: spec for spec in specs}
        async with self.admin() as admin:
            present = await described(admin, wanted)
            missing = [spec for name, spec in wanted.items() if name not in present]
            if not missing:
                return
            if not self._config.create_topics:
                names = ", ".join(repr(spec.name) for spec in missing)
                raise BusError(
                    f"topics do not exist: {names}; create them, or set options.kafka.create_topics"
                )
            brokers = len((await admin.describe_cluster())["brokers"])
            response = await admin.create_topics(
                [self.new_topic(spec, brokers=brokers) for spec in missing]
            )
            refused = [
                f"{name!r}: {message or for_code(code).__name__}"
                for name, code, message in response.topic_errors
                if for_code(code) not in {NoError, TopicAlreadyExistsError}
            ]
            created = [name for name, code, _ in response.topic_errors if for_code(code) is NoError]
            if created:
                logger.info(
                    "Created topics: %s",
                    ", ".join(created),
                    extra={"action": "kafka_topics_created"},
                )
            if refused:
                raise BusError(f"topics could not be created: {'; '.join(refused)}")
            await self._until_led(admin, wanted)

    async def _until_led(self, admin: AIOKafkaAdminClient, names: Mapping[str, TopicSpec]) -> None:
        # A topic that was just created is known to the other brokers, and has its leaders, a moment
        # later.
        while True:
            there = await described(admin, names)
            if len(there) == len(names) and not any(topic.leaderless for topic in there.values()):
                return
            await anyio.sleep(0.02)

    def new_topic(self, spec: TopicSpec, *, brokers: int) -> NewTopic:
        """How a topic is made."""
        config = self._config
        settings = {
            "cleanup.policy": "delete",
            # Messages travel without a time of their own: the broker's time is shown with them, and
            # decides how long they are kept.
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(
                1000 * (config.broadcast_retention_sec if spec.broadcast else config.retention_sec)
            ),
            "max.message.bytes": str(max(1_048_588, config.max_message_bytes + OVERHEAD_BYTES)),
        }
        return NewTopic(
            spec.name,
            num_partitions=config.broadcast_partitions if spec.broadcast else config.partitions,
            replication_factor=config.replication_factor or min(3, brokers),
            topic_configs=settings | config.topic_settings,
        )


async def described(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, Topic]:
    """Those of ``names`` that exist. Asks for all topics: naming one that does not exist creates it
    on some brokers.
    """
    found = {}
    for topic in await admin.describe_topics():
        if topic["topic"] in names and not topic["error_code"]:
            partitions = topic["partitions"]
            found[topic["topic"]] = Topic(
                topic["topic"],
                len(partitions),
                min((len(partition["replicas"]) for partition in partitions), default=0),
                sum(partition["leader"] < 0 for partition in partitions),
            )
    return found
