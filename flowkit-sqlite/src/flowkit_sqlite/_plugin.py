"""Plugin of the entry-point group ``flowkit``: stores and buses at ``sqlite://`` addresses.

They are imported when one is opened, so that an installed plugin costs nothing.
"""

from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, Store
from flowkit_sqlite._address import is_address


def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a bus for ``sqlite:///path.db``, None for other addresses."""
    if not is_address(address):
        return None
    from flowkit_sqlite._bus import SqliteBus

    return SqliteBus(address, config)


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Return a store for ``sqlite:///path.db``, None for other sources."""
    if not is_address(source):
        return None
    from flowkit_sqlite._config import SqliteConfig
    from flowkit_sqlite._store import SqliteStore

    return SqliteStore(
        source,
        namespace=config.namespace,
        config=SqliteConfig.from_options(config.options.get("sqlite", {})),
    )
