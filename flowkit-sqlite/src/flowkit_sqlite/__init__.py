"""FlowKit's store and message bus in one SQLite file.

``Coordinator(db="sqlite:///flowkit.db", …)`` opens both itself; use :class:`SqliteStore` and
:class:`SqliteBus` to open one yourself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_sqlite._artifacts import SqliteArtifactStore
    from flowkit_sqlite._bus import SqliteBus
    from flowkit_sqlite._config import SqliteConfig
    from flowkit_sqlite._store import SqliteStore

__all__ = ["SqliteArtifactStore", "SqliteBus", "SqliteConfig", "SqliteStore"]

_MODULES = {
    "SqliteArtifactStore": "_artifacts",
    "SqliteBus": "_bus",
    "SqliteConfig": "_config",
    "SqliteStore": "_store",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that an installed plugin costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
