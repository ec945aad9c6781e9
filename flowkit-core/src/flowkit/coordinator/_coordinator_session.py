"""The session of a coordinator: a proof that it runs, and that the store accepts changes."""

from contextlib import suppress

from flowkit._records.heartbeats import process_info
from flowkit._records.worker_sessions import COORDINATOR, OwnSession, WorkerSession, end_session
from flowkit._runtime.concurrency import within
from flowkit.errors import StoreError
from flowkit.protocols import Clock, Store

LEAVE_SEC = 2.0
SLOW_SEC = 1.0
"""A renewal that takes longer has waited for an outage to end."""


class CoordinatorSession:
    """The session of this coordinator. Clients see by it that a coordinator runs."""

    def __init__(
        self, *, store: Store, clock: Clock, coordinator_id: str, hb_interval_sec: float
    ) -> None:
        self._store = store
        self._stored = OwnSession(store, coordinator_id)
        self._clock = clock
        self._coordinator_id = coordinator_id
        self._started_at = clock.now()
        self._info = process_info(hb_interval_sec) | {
            "kind": COORDINATOR,
            "incarnation": coordinator_id,
        }
        self._beat = 0
        self._pause = hb_interval_sec
        self._renewed_at = clock.monotonic()
        self._is_renewed = True
        """Whether the last renewal succeeded. It may also have been cancelled."""
        self.accepted_since = clock.now()
        """Time since which the store accepts changes, as far as the renewals show."""

    async def renew(self) -> None:
        """Write a heartbeat.

        Raises:
            StoreUnavailable: the store does not accept changes.
        """
        began = self._clock.monotonic()
        was_renewed, self._is_renewed = self._is_renewed, False
        await self._write()
        now = self._clock.monotonic()
        is_late = now - began > SLOW_SEC or now - self._renewed_at > 2 * self._pause
        if is_late or not was_renewed:
            self.accepted_since = self._clock.now()
        self._renewed_at, self._is_renewed = now, True

    async def _write(self) -> None:
        self._beat += 1
        info = self._info | {"renewed_at": str(self._clock.now())}
        await self._stored.renew(
            WorkerSession(self._coordinator_id, (), self._beat, self._started_at, info)
        )

    async def end(self) -> None:
        """Delete the session. If the store is unavailable, it stays until it is old."""

        async def delete() -> None:
            await end_session(self._store, self._coordinator_id)

        with suppress(StoreError):
            await within(LEAVE_SEC, delete, clock=self._clock)
