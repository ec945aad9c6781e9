"""Notifications between the processes that use the file."""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress

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

    def has_changed(self) -> bool:
        """Return whether other connections changed the file since the previous call."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        previous, self._data_version = self._data_version, version
        return bool(version != previous)

    def ring(self, channels: Iterable[str]) -> None:
        """Send a datagram about channels to each other process."""
        if self._doorbell is None:
            return
        found = self._connection.execute(
            "SELECT port FROM processes WHERE port != ? AND leased_until > ?",
            (self._doorbell.port, time.time()),
        )
        if ports := [port for (port,) in found]:
            self._doorbell.ring(ports, channels)

    def renew(self) -> None:
        """Renew the lease of this process if it is time to, and delete expired ones.

        Raises:
            sqlite3.Error: the table could not be changed; the next call tries again.
        """
        if self._doorbell is None or time.monotonic() < self._renew_at:
            return
        now = time.time()
        # A lease that lies too far in the future was written before the clock was set back.
        self._connection.execute(
            "DELETE FROM processes WHERE leased_until NOT BETWEEN ? AND ?",
            (now, now + 2 * LEASE_SEC),
        )
        self._connection.execute(
            "INSERT INTO processes VALUES (?, ?)"
            " ON CONFLICT (port) DO UPDATE SET leased_until = excluded.leased_until",
            (self._doorbell.port, now + LEASE_SEC),
        )
        self._renew_at = time.monotonic() + RENEW_SEC

    def leave(self) -> None:
        """Delete the entry of this process."""
        if self._doorbell is not None:
            with suppress(sqlite3.Error):
                self._connection.execute(
                    "DELETE FROM processes WHERE port = ?", (self._doorbell.port,)
                )
