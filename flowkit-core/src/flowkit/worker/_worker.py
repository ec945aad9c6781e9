"""The life of a worker."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Self

from flowkit._runtime.services import run_until_signalled
from flowkit.clock import StoreClock
from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError, WorkerIdTaken
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store
from flowkit.worker._handler_registry import handlers_by_role
from flowkit.worker._service import WorkerService


class Worker:
    """Runs the nodes of its roles.

    ``db`` is a store's address or a database object, and the bus is the one that ``cfg`` names;
    ``store`` and ``bus`` given as open objects win, and stay open. When :meth:`start` returns, or
    ``async with`` is entered, the worker takes commands.
    """

    def __init__(
        self,
        *,
        db: Any = None,
        cfg: WorkerConfig | None = None,
        handlers: Any = None,
        bus: Bus | str | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        plugins: Sequence[object] | Plugins | None = None,
    ) -> None:
        """``handlers`` maps roles to handlers, handler classes or functions; or it is a sequence of
        functions made with ``@handler``.

        Raises:
            ConfigError: a role has no handler, or there is neither ``db`` nor ``store``.
        """
        self.cfg = cfg or WorkerConfig()
        self.clock: Clock = clock or StoreClock()
        self.worker_id = self.cfg.worker_id or _made_up_id()
        self._db = db if db is not None else self.cfg.db
        self._bus = bus
        self._store = store
        if store is None and self._db is None:
            raise ConfigError("db: a worker needs a store; give db=, store= or cfg.db")
        self._plugins = plugins if isinstance(plugins, Plugins) else Plugins(plugins or ())
        self._served = handlers_by_role(handlers, self._plugins, self.cfg)
        self._service: WorkerService | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles it serves."""
        return tuple(self._served)

    async def start(self) -> None:
        """Connect, and return when commands are being taken. A worker that runs is left as it is.

        Raises:
            WorkerIdTaken: a live worker has the configured ``worker_id``.
        """
        if self._service is not None and not self._service.host.done():
            return
        try:
            await self._begin()
        except WorkerIdTaken:
            if self.cfg.worker_id is not None:
                raise
            # A copy of this process has the name that was made up for both.
            self.worker_id = _made_up_id()
            await self._begin()

    async def _begin(self) -> None:
        self._service = WorkerService(
            worker_id=self.worker_id,
            cfg=self.cfg,
            clock=self.clock,
            plugins=self._plugins,
            served=self._served,
            db=self._db,
            bus=self._bus,
            store=self._store,
        )
        try:
            await self._service.start()
        except BaseException:
            self._service = None
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Take no more, let runs finish for ``grace`` seconds (``cfg.stop_grace_sec``), hand back
        the rest, and leave.

        Called again meanwhile, with a shorter grace, it hurries.

        Raises what ended the worker, if it has ended before it was asked to.
        """
        service = self._service
        if service is None:
            return
        if not service.host.done():
            service.stop(self.cfg.stop_grace_sec if grace is None else grace)
        try:
            await service.outcome()
        except WorkerIdTaken:
            self._service = None
            raise
        self._service = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Work until cancelled, or until SIGTERM or SIGINT: the first drains, a second ends the
        process at once.

        If a signal ended this, the process is ended when ``stop_grace_sec`` and
        ``cancel_grace_sec`` are over, but not before 3 seconds after the return, unless it has
        ended by itself or runs a worker or coordinator again. Use ``async with`` to go on instead.
        """
        patience_sec = self.cfg.stop_grace_sec + self.cfg.cancel_grace_sec
        await run_until_signalled(
            name=f"Worker {self.worker_id}",
            start=self.start,
            wait_ended=self._ended,
            stop=self.stop,
            abort=self._hurry,
            task=lambda: None if self._service is None else self._service.host,
            patience_sec=patience_sec,
        )

    async def _ended(self) -> None:
        if self._service is not None:
            await self._service.ended.wait()

    def _hurry(self) -> None:
        if self._service is not None:
            self._service.stop(0)


def _made_up_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
