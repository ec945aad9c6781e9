"""Worker: the service that runs the nodes of its roles, with a handler for each role."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Self

from flowkit._backends import Backends
from flowkit._runtime.services import run_until_signalled
from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError, WorkerIdTaken
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store
from flowkit.worker._lifecycle import WorkerService
from flowkit.worker._roles import handlers_by_role


class Worker:
    """Runs the nodes of its roles.

    ``db`` is the address of a store or a database object. ``cfg`` names the bus. An open ``store``
    or ``bus`` takes precedence, and stays open. When :meth:`start` returns, or ``async with`` is
    entered, the worker takes commands.
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
        """Check the configuration.

        ``handlers`` maps roles to handlers, handler classes or functions, or is a sequence of
        functions with ``@handler``.

        Raises:
            ConfigError: a role has no handler, or there is neither ``db`` nor ``store``.
        """
        self.cfg = cfg or WorkerConfig()
        self.worker_id = self.cfg.worker_id or _generated_id()
        if store is None and db is None and self.cfg.db is None:
            raise ConfigError("db: a worker needs a store; give db=, store= or cfg.db")
        self._backends = Backends.of(
            cfg=self.cfg, db=db, bus=bus, store=store, clock=clock, plugins=plugins
        )
        self.clock: Clock = self._backends.clock
        self._served = handlers_by_role(handlers, self._backends.plugins, self.cfg)
        self._service: WorkerService | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the worker serves."""
        return tuple(self._served)

    async def start(self) -> None:
        """Connect, and return when the worker takes commands. A running worker is not changed.

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
            # A copy of this process has the same generated id.
            self.worker_id = _generated_id()
            await self._begin()

    async def _begin(self) -> None:
        self._service = WorkerService(
            worker_id=self.worker_id,
            cfg=self.cfg,
            backends=self._backends,
            served=self._served,
        )
        try:
            await self._service.start()
        except BaseException:
            self._service = None
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Drain and end the worker.

        It takes no more commands, lets runs finish for ``grace`` seconds (by default
        ``cfg.stop_grace_sec``), and hands back the rest.

        A second call may shorten the grace.

        Raises the error that ended the worker, if it ended before it was asked to stop.
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
        """Run until cancelled, or until SIGTERM or SIGINT.

        The first signal drains the worker, a second ends the process at once.

        After a signal the process is ended: ``stop_grace_sec`` plus ``cancel_grace_sec`` after it,
        but at least 3 seconds after this returns. A process that exits by itself, or runs a worker
        or coordinator again, is left alone. To go on after a signal, use ``async with``.
        """
        patience_sec = self.cfg.stop_grace_sec + self.cfg.cancel_grace_sec
        await run_until_signalled(
            name=f"Worker {self.worker_id}",
            start=self.start,
            wait_ended=self._ended,
            stop=self.stop,
            abort=self._abort,
            task=lambda: None if self._service is None else self._service.host,
            patience_sec=patience_sec,
        )

    async def _ended(self) -> None:
        if self._service is not None:
            await self._service.ended.wait()

    def _abort(self) -> None:
        if self._service is not None:
            self._service.stop(0)


def _generated_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
