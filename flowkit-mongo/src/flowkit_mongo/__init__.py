"""FlowKit's store on MongoDB.

``Coordinator(db="mongodb://host/name", …)`` opens the store itself; use :class:`MongoStore` to open
one yourself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_mongo._artifacts import MongoArtifactStore
    from flowkit_mongo._config import MongoConfig
    from flowkit_mongo._store import MongoStore

__all__ = ["MongoArtifactStore", "MongoConfig", "MongoStore"]

_MODULES = {"MongoArtifactStore": "_artifacts", "MongoConfig": "_config", "MongoStore": "_store"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the plugin alone does not import the driver."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
