"""Plugin for ``memory://`` addresses, registered in the entry-point group ``flowkit``.

All parts of a process that open the same ``memory://NAME`` share one bus, and one store per
namespace.
"""

from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, Store
from flowkit_testing._broker import Broker
from flowkit_testing._bus import InMemoryBus
from flowkit_testing._store import InMemoryStore

SCHEME = "memory://"

_brokers: dict[str, Broker] = {}
_stores: dict[tuple[str, str], InMemoryStore] = {}


def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Open the bus of a ``memory://`` address.

    Buses with the same address share their messages. Each has the dead-letter topic of its
    configuration.
    """
    if not address.startswith(SCHEME):
        return None
    return InMemoryBus(
        broker=_brokers.setdefault(address, Broker()), dead_letter_topic=config.dead_letter_topic
    )


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Open the store of a ``memory://`` address and namespace.

    A given in-memory store is returned unchanged.
    """
    if isinstance(source, InMemoryStore):
        return source
    if isinstance(source, str) and source.startswith(SCHEME):
        return _stores.setdefault((source, config.namespace), InMemoryStore())
    return None
