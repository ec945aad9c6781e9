"""Plugin of the entry-point group ``flowkit``: stores and buses at ``sqlite://`` addresses.

They are imported when one is opened, so that an installed plugin costs nothing.
"""

from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Store
from flowkit_sqlite._address import is_address


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Return a store for ``sqlite:///path.db``, None for other sources."""
    if not is_address(source):
        return None
    from flowkit_sqlite._config import SqliteConfig
    from flowkit_sqlite._store import SqliteStore  # type: ignore[import-not-found]

    store: Store = SqliteStore(
        source,
        namespace=config.namespace,
        config=SqliteConfig.from_options(config.options.get("sqlite", {})),
    )
    return store
