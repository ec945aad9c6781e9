"""Names of topics that users give: of triggers, and of ``kafka.publish``."""

from flowkit.adapters import checked_topic
from flowkit.errors import ConfigError

OF_THE_BROKERS = frozenset(
    {"__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"}
)
"""Topics that hold the state of the brokers. Clients cannot read their records as messages, and
cannot write to them.
"""


def users_topic(topic: str, what: str) -> str:
    """Return the name of a topic.

    Raises:
        ConfigError: Kafka does not accept the name, or the topic belongs to the brokers.
    """
    if topic in OF_THE_BROKERS:
        raise ConfigError(f"{what}: {topic!r} holds the state of the brokers, and no messages")
    return checked_topic(topic, what)
