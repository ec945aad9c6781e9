"""Membership of a worker: its session in the store, its heartbeat, and its claim to its id."""

import logging
import secrets
from collections.abc import Callable, Sequence

from flowkit._records.heartbeats import heartbeat_interval_sec, process_info, process_of
from flowkit._records.worker_sessions import OwnSession, WorkerSession, end_session, session_of
from flowkit._runtime.retries import notices_of
from flowkit.config import WorkerConfig
from flowkit.errors import StoreError, WorkerIdTaken
from flowkit.protocols import Clock, Store

logger = logging.getLogger(__name__)

LOOK_SEC = 0.5


class Membership:
    """The session of a worker, renewed by heartbeats. Its data about the load changes less often.

    The session of a killed worker stays in the store for a while. A worker is alive if its session
    is renewed.
    """

    def __init__(
        self,
        *,
        store: Store,
        cfg: WorkerConfig,
        worker_id: str,
        roles: Sequence[str],
        running: Callable[[], int],
        waiting: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._store = store
        self._session = OwnSession(store, worker_id)
        self._cfg = cfg
        self._worker_id = worker_id
        self._roles = tuple(roles)
        self._running = running
        self._waiting = waiting
        self._clock = clock
        self._beat = 0
        self._started_at = clock.now()
        self._info = {
            "max_concurrency": str(cfg.max_concurrency),
            "incarnation": secrets.token_hex(8),
            **process_info(cfg.hb_interval_sec),
        }
        self._superseded = False

    async def join(self) -> None:
        """Take the worker id and write the first heartbeat.

        If a session with this id is not renewed within two heartbeats, its worker was killed and
        the id is free. A generated id is not waited for.

        Raises:
            WorkerIdTaken: a live worker has the id.
        """
        holder = await self._holder()
        if holder is not None:
            if self._cfg.worker_id is None:
                raise _taken(holder)
            await self._wait_for_silence(holder)
            # Start after the holder, even if its clock is ahead: if the holder returns, it stops.
            self._started_at = max(self._clock.now(), holder.started_at + 0.001)
        await self.renew()

    async def _holder(self) -> WorkerSession | None:
        return await session_of(self._store, self._worker_id)

    async def _wait_for_silence(self, holder: WorkerSession) -> None:
        patience = 2 * heartbeat_interval_sec(holder) + 1
        logger.info(
            "The worker id %s has a session: waiting %.0f s for a heartbeat of its worker",
            self._worker_id,
            patience,
        )
        until = self._clock.monotonic() + patience
        while self._clock.monotonic() < until:
            await self._clock.sleep(LOOK_SEC)
            found = await self._holder()
            if found is None:
                return
            if (found.beat, found.age) != (holder.beat, holder.age):
                raise _taken(found)

    async def renew(self) -> None:
        """Write a heartbeat.

        Raises:
            WorkerIdTaken: a worker that started later has taken the id. The one that started
                first has to stop.
        """
        self._beat += 1
        info = self._info | {
            "running": str(self._running()),
            "waiting": str(self._waiting()),
            "renewed_at": str(self._clock.now()),
        }
        mine = WorkerSession(
            self._worker_id, self._roles, self._beat, started_at=self._started_at, info=info
        )
        later = await self._session.renew(mine)
        if later is not None:
            self._superseded = True
            raise _taken(later)

    async def keep_renewing(self, on_taken: Callable[[WorkerIdTaken], None]) -> None:
        """Run the loop of heartbeats.

        After a failed one it goes on with the next. It ends when another worker has taken the id.
        """
        notices = notices_of(self._clock)
        while True:
            await self._clock.sleep(self._cfg.hb_interval_sec)
            try:
                await self.renew()
            except StoreError as error:
                what = f"The session of worker {self._worker_id} cannot be renewed"
                notices.trouble(logger, "session", what, error, action="beat_missed")
            except WorkerIdTaken as error:
                on_taken(error)
                return
            else:
                notices.over(logger, "session")

    async def leave(self) -> None:
        """Remove the session, unless another worker has taken it over."""
        if self._superseded:
            return
        try:
            await end_session(self._store, self._worker_id)
        except StoreError as error:
            logger.warning(
                "The session of worker %s was not ended: %s",
                self._worker_id,
                error,
                extra={"action": "session_left"},
            )


def _taken(holder: WorkerSession) -> WorkerIdTaken:
    where = process_of(holder)
    error = WorkerIdTaken(
        f"worker_id {holder.worker_id!r} is in use by {where}: give each worker a worker_id of its"
        " own, or leave it out"
    )
    error.process = where
    return error
