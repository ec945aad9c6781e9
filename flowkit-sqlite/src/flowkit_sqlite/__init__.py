"""FlowKit's store and message bus in one SQLite file.

``Coordinator(db="sqlite:///flowkit.db", …)`` opens both itself.
"""

from flowkit_sqlite._bus import SqliteBus
from flowkit_sqlite._config import SqliteConfig

__all__ = ["SqliteBus", "SqliteConfig"]
