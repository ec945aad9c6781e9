"""FlowKit's store on MongoDB.

``Coordinator(db="mongodb://host/name", …)`` finds it by itself; :class:`MongoStore` is for those
who want to build one by hand.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_mongo._artifacts import MongoArtifactStore
    from flowkit_mongo._config import MongoConfig
    from flowkit_mongo._store import MongoStore

__all__ = ["MongoArtifactStore", "MongoConfig", "MongoStore"]

_MODULES = {"MongoArtifactStore": "_artifacts", "MongoConfig": "_config", "MongoStore": "_store"}


def __getattr__(name: str) -> Any:
    """Import the names above when they are asked for: the plugin alone should not cost the driver's
    import.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
