"""Notifications between the processes that use the file."""

import sqlite3
import time
from collections.abc import Iterable
from typing import Any

from flowkit_sqlite._wakeups import Doorbell

LEASE_SEC = 30.0
"""Time for which a process that was killed still gets datagrams."""
RENEW_SEC = 10.0


class Presence:
    """Entry of this process in the table of processes, and a look at those of the others."""

    def __init__(self, connection: sqlite3.Connection, doorbell: Doorbell | None) -> None:
        self._connection = connection
        self._doorbell = doorbell
        self._renew_at = 0.0
        self._data_version = 0
        self._ports: set[int] = set()

    def has_changed(self) -> bool:
        """Return whether other connections changed the file since the previous call."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        previous, self._data_version = self._data_version, version
        return bool(version != previous)

    def look(self) -> None:
        """Read the ports of the other processes.

        A process rings when it has entered its port, so that the others read it.
        """
        if self._doorbell is not None:
            found = self._connection.execute(
                "SELECT port FROM processes WHERE port != ? AND leased_until > ?",
                (self._doorbell.port, time.time()),
            )
            self._ports = {port for (port,) in found}

    def knows(self, port: int) -> bool:
        """Return whether a port is one of those that were read."""
        return port in self._ports

    def ring(self, notified: Iterable[tuple[str, Any]]) -> None:
        """Send a datagram about channels, which have news, to each other process."""
        if self._ports and self._doorbell is not None:
            self._doorbell.ring(self._ports, [channel for channel, _ in notified])

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew the lease of this process."""
        return self._doorbell is not None and time.monotonic() >= self._renew_at

    def renew(self, db: sqlite3.Connection) -> None:
        """Renew the lease of this process, and delete expired ones. Call it in a job.

        Raises:
            sqlite3.Error: the table could not be changed.
        """
        if self._doorbell is None:
            return
        now = time.time()
        # A lease that lies too far in the future was written before the clock was set back.
        db.execute(
            "DELETE FROM processes WHERE leased_until NOT BETWEEN ? AND ?",
            (now, now + 2 * LEASE_SEC),
        )
        db.execute(
            "INSERT INTO processes VALUES (?, ?)"
            " ON CONFLICT (port) DO UPDATE SET leased_until = excluded.leased_until",
            (self._doorbell.port, now + LEASE_SEC),
        )
        self._renew_at = time.monotonic() + RENEW_SEC

    def leave(self, db: sqlite3.Connection) -> None:
        """Delete the entry of this process. Call it in a job."""
        if self._doorbell is not None:
            db.execute("DELETE FROM processes WHERE port = ?", (self._doorbell.port,))
