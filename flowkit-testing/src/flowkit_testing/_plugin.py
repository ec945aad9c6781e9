"""The hooks of ``memory://`` addresses, registered under the entry-point group ``flowkit``.

All parts of a process that open the same ``memory://NAME`` share one bus, and one store for each
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
    """A bus at a ``memory://`` address; those at one address meet, each with the dead-letter topic
    of its configuration.
    """
    if not address.startswith(SCHEME):
        return None
    return InMemoryBus(
        broker=_brokers.setdefault(address, Broker()), dead_letter_topic=config.dead_letter_topic
    )


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """The store of a ``memory://`` address and the configured namespace, or the in-memory store
    that was given.
    """
    if isinstance(source, InMemoryStore):
        return source
    if isinstance(source, str) and source.startswith(SCHEME):
        return _stores.setdefault((source, config.namespace), InMemoryStore())
    return None
