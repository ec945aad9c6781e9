"""Addresses of sources of triggers: ``kafka://host:9092,host2:9092/topic?from=beginning``."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from flowkit.adapters import redacted
from flowkit.errors import ConfigError
from flowkit_kafka._address import SCHEME, bootstrap_servers
from flowkit_kafka._topic_names import users_topic

FORM = "kafka://host:9092,host2:9092/topic"
_STARTS = {"now": False, "beginning": True}


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """Brokers and topic of a source."""

    servers: list[str]
    topic: str
    from_beginning: bool

    @classmethod
    def parse(cls, address: str) -> "SourceAddress":
        """Read an address.

        Raises:
            ConfigError: it is wrong.
        """
        place, _, query = address.removeprefix(SCHEME).partition("?")
        brokers, _, topic = place.partition("/")
        servers = bootstrap_servers(SCHEME + brokers, field="source", form=FORM)
        if not topic:
            raise ConfigError(f"source: {redacted(address)!r} names no topic; write {FORM}")
        return cls(servers, users_topic(topic, "source"), _from_beginning(query))


def _from_beginning(query: str) -> bool:
    given = parse_qsl(query, keep_blank_values=True)
    wrong = [name for name, value in given if name != "from" or value not in _STARTS]
    if wrong or len(given) > 1 or (query and not given):
        raise ConfigError(
            f"source: {query!r} after the topic is not known; write from=beginning or from=now"
        )
    return any(_STARTS[value] for _, value in given)
