"""Administration of topics: description, creation and restoration."""

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from flowkit.errors import BusError, BusUnavailable, TopicUnavailable
from flowkit.protocols import TopicSpec
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_lifecycle import start
from flowkit_kafka._errors import DRIVER_ERRORS, translated
from flowkit_kafka._messages import OVERHEAD_BYTES

logger = logging.getLogger(__name__)

_LEADER_PAUSE_SEC = 0.02
_USUAL_COPIES = 3
_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of ``max.message.bytes``."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers describe it."""

    name: str
    partitions: int
    replication: int
    leaderless: int
    """Partitions without a leader at the moment, which can be neither written nor read."""


class Topics:
    """Topics of an installation. Each request has its own connection, because they are rare."""

    def __init__(self, servers: Sequence[str], config: KafkaConfig) -> None:
        self._servers = list(servers)
        self._config = config
        self._needed: dict[str, TopicSpec] = {}
        """Topics that must exist, by name."""
        self._restoring = anyio.Lock()

    def need(self, specs: Sequence[TopicSpec]) -> None:
        """Remember topics so that :meth:`restore` can create them again."""
        self._needed |= {spec.name: spec for spec in specs}

    async def restore(self, names: Collection[str]) -> None:
        """Create the needed topics among these that were deleted; ignore other names.

        Raises:
            TopicUnavailable: a topic may not be created.
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
        """Yield a connected admin client.

        Raises:
            BusUnavailable: the brokers cannot be reached, or refuse a request.
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
            addresses = ", ".join(self._servers)
            raise translated(error, f"requesting topics from {addresses}") from error
        finally:
            with anyio.move_on_after(self._config.close_timeout_sec, shield=True):
                await client.close()

    async def existing(self, names: Collection[str]) -> dict[str, Topic]:
        """Return the topics among ``names`` that exist, by name."""
        async with self.admin() as admin:
            return await described(admin, names)

    async def ensure(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist, if that is allowed.

        Raises:
            BusError: topics do not exist and may not be created; the message names them.
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
            await self._create(admin, missing)
            await _wait_for_leaders(admin, wanted)

    async def _create(self, admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
        brokers = len((await admin.describe_cluster())["brokers"])
        response = await admin.create_topics(
            [self._new_topic(spec, brokers=brokers) for spec in specs]
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

    def _new_topic(self, spec: TopicSpec, *, brokers: int) -> NewTopic:
        config = self._config
        settings = {
            "cleanup.policy": "delete",
            # Messages carry no time of their own: the broker's time is shown with them, and decides
            # when they are deleted.
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(
                1000 * (config.broadcast_retention_sec if spec.broadcast else config.retention_sec)
            ),
            "max.message.bytes": str(
                max(_DEFAULT_MAX_MESSAGE_BYTES, config.max_message_bytes + OVERHEAD_BYTES)
            ),
        }
        return NewTopic(
            spec.name,
            num_partitions=config.broadcast_partitions if spec.broadcast else config.partitions,
            replication_factor=copies_of_a_new_topic(config, brokers),
            topic_configs=settings | config.topic_settings,
        )


def copies_of_a_new_topic(config: KafkaConfig, brokers: int) -> int:
    """Return the replication factor that a new topic gets."""
    return config.replication_factor or min(_USUAL_COPIES, brokers)


async def _wait_for_leaders(admin: AIOKafkaAdminClient, names: Collection[str]) -> None:
    """Wait until all topics are visible and have leaders, which follows their creation."""
    while True:
        found = await described(admin, names)
        if len(found) == len(names) and not any(topic.leaderless for topic in found.values()):
            return
        await anyio.sleep(_LEADER_PAUSE_SEC)


async def described(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, Topic]:
    """Return the topics among ``names`` that exist.

    This requests all topics, because naming a topic that does not exist creates it on some brokers.
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
