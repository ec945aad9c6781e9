"""Plugin of the entry-point group ``flowkit``: stores on MongoDB.

The driver is imported when a store is opened, so that an installed plugin costs nothing.
"""

from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Store
from flowkit_mongo._drivers import driver_of, is_address


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Return a store for a MongoDB address or an asynchronous database, None for other sources."""
    if not is_address(source) and driver_of(source) is None:
        return None
    from flowkit_mongo._config import MongoConfig
    from flowkit_mongo._store import MongoStore

    return MongoStore(
        source,
        namespace=config.namespace,
        config=MongoConfig.from_options(config.options.get("mongo", {})),
    )
