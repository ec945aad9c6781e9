"""The worker's sign of life in the store."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from flowkit.config import WorkerConfig
from flowkit.errors import StoreError
from flowkit.protocols import Clock, Store, WorkerSession

logger = logging.getLogger(__name__)


class Session:
    """Renewed every few seconds; what it tells of the worker's load is brought up to date less often."""

    def __init__(
        self, *, store: Store, cfg: WorkerConfig, worker_id: str, roles: Sequence[str], running: Callable[[], int], clock: Clock
    ) -> None:
        self._store = store
        self._cfg = cfg
        self._worker_id = worker_id
        self._roles = tuple(roles)
        self._running = running
        self._clock = clock
        self._beat = 0
        self._started_at = clock.now()
        self._announced_at: float | None = None
        self._info: dict[str, str] = {}

    async def renew(self) -> None:
        now = self._clock.monotonic()
        if self._announced_at is None or now - self._announced_at >= self._cfg.announce_interval_sec:
            self._announced_at = now
            self._info = {
                "running": str(self._running()),
                "max_concurrency": str(self._cfg.max_concurrency),
                "host": socket.gethostname(),
                "pid": str(os.getpid()),
                "version": _version(),
            }
        self._beat += 1
        await self._store.renew_session(
            WorkerSession(self._worker_id, self._roles, self._beat, started_at=self._started_at, info=self._info)
        )

    async def keep_renewing(self) -> None:
        """The loop. A beat that is missed is made good by the next."""
        while True:
            await self._clock.sleep(self._cfg.hb_interval_sec)
            try:
                await self.renew()
            except StoreError as error:
                logger.warning("The session of worker %s was not renewed: %s", self._worker_id, error, extra={"action": "beat_missed"})

    async def end(self) -> None:
        """Say that the worker is gone."""
        try:
            await self._store.end_session(self._worker_id)
        except StoreError as error:
            logger.warning("The session of worker %s was not ended: %s", self._worker_id, error, extra={"action": "session_left"})


@cache
def _version() -> str:
    try:
        return version("flowkit-core")
    except PackageNotFoundError:
        return "unknown"
