"""Registered under the entry-point group ``flowkit``: stores on MongoDB.

The driver is imported when a store is opened, so that having the plugin installed costs nothing.
"""

from typing import Any

from flowkit.config import CommonConfig
from flowkit.protocols import Store

ADDRESSES = ("mongodb://", "mongodb+srv://")
DATABASES = ("motor.", "pymongo.asynchronous", "mongomock_motor")


def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """A store for a MongoDB address or an asynchronous database; None for anything else."""
    if isinstance(source, str):
        if not source.startswith(ADDRESSES):
            return None
    elif not type(source).__module__.startswith(DATABASES):
        return None
    return _open(source, config)


def _open(source: Any, config: CommonConfig) -> Store | None:
    from flowkit_mongo._config import MongoConfig
    from flowkit_mongo._driver import is_address, kind_of
    from flowkit_mongo._store import MongoStore

    if not is_address(source) and kind_of(source) is None:
        return None
    return MongoStore(
        source,
        namespace=config.namespace,
        config=MongoConfig.from_options(config.options.get("mongo", {})),
    )
