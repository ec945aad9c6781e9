"""The producer of the coordinator function ``kafka.publish``."""

from typing import Self

from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.protocols import Message
from flowkit_kafka._address import SCHEME, bootstrap_servers
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._messages import check_size
from flowkit_kafka._producer import SupervisedProducer


class Publisher:
    """The producer of ``kafka.publish``, and the topics that the configuration allows.

    It connects when the first message is sent.
    """

    def __init__(self, config: CommonConfig) -> None:
        """Check the settings.

        Raises:
            ConfigError: ``options.kafka`` is wrong, or no brokers are configured.
        """
        self._common = config
        self._config = KafkaConfig.of(config)
        self._producer = SupervisedProducer(
            bootstrap_servers(self._address()), self._config, as_other_clients=True
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._producer.__aexit__(*exc)

    def objection(self, topic: str) -> str | None:
        """Return why messages may not be published to a topic, or None if they may."""
        if topic not in self._config.publish_topics:
            return f"topic {topic!r} is not in options.kafka.publish_topics of the coordinator"
        return None

    async def send(self, message: Message) -> dict[str, int] | None:
        """Send a message, and return its partition and offset if the brokers know them.

        Raises:
            MessageTooLarge: the message is above the limit of the configuration or the brokers.
            TopicUnavailable: the topic is missing, has no leader, or may not be written.
            BusUnavailable: the brokers did not confirm the message.
        """
        check_size(message, self._config.max_message_bytes)
        (place,) = await self._producer.send([message])
        return None if place is None else {"partition": place[0], "offset": place[1]}

    def _address(self) -> str:
        if self._config.publish_bootstrap is not None:
            return SCHEME + self._config.publish_bootstrap
        if self._common.bus is not None and self._common.bus.startswith(SCHEME):
            return self._common.bus
        raise ConfigError(
            "options.kafka.publish_bootstrap is missing, and the bus has no kafka:// address"
        )
