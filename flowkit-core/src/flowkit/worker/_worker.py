"""Worker: the service that runs the nodes of its roles, with a handler for each role."""

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from flowkit._runtime.services import run_until_signalled
from flowkit.clock import StoreClock
from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError, WorkerIdTaken
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Clock, Store
from flowkit.worker._functions import AnyHandler, FunctionHandler, Make
from flowkit.worker._handlers import (
    Handler,
    PerRun,
    check_made_without_arguments,
    place_of,
    wrong_declaration,
)
from flowkit.worker._lifecycle import WorkerService


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
        self.clock: Clock = clock or StoreClock()
        self.worker_id = self.cfg.worker_id or _generated_id()
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


def handlers_by_role(handlers: Any, plugins: Plugins, cfg: WorkerConfig) -> dict[str, Make]:
    """Return, for each role of the worker, a function that gives a run its handler.

    Raises:
        ConfigError: a role has no handler, a value is not a handler, or the topic name of a role
            is too long.
    """
    given = _as_mapping(handlers)
    roles = list(dict.fromkeys(cfg.roles)) or list(given)
    if not roles:
        raise ConfigError("handlers: a worker needs at least one handler")
    served: dict[str, Make] = {}
    for role in roles:
        cfg.command_topic(role)
        if role in given:
            served[role] = _maker(role, given[role])
        elif role in plugins.handlers:
            served[role] = _offered(role, plugins)
        else:
            raise ConfigError(
                f"handlers: there is no handler for role {role!r}; there are handlers for"
                f" {', '.join(map(repr, given)) or 'no role'}"
            )
    return served


def _as_mapping(handlers: Any) -> Mapping[str, Any]:
    if handlers is None:
        return {}
    if isinstance(handlers, Mapping):
        if wrong := [role for role in handlers if not isinstance(role, str) or not role]:
            raise ConfigError(f"handlers: a role must be a name, not {wrong[0]!r}")
        return handlers
    if not isinstance(handlers, Sequence) or isinstance(handlers, str | bytes):
        raise ConfigError(
            "handlers: expected a mapping of roles to handlers or a sequence of functions, not"
            f" {type(handlers).__name__}"
        )
    by_role: dict[str, Any] = {}
    for item in handlers:
        role = getattr(item, "role", None)
        if not isinstance(role, str) or not role:
            raise ConfigError(
                f'handlers: {item!r} has no role; declare it with @handler("role") or'
                " give a mapping"
            )
        if role in by_role:
            raise ConfigError(f"handlers: there are two handlers for role {role!r}")
        by_role[role] = item
    return by_role


def _offered(role: str, plugins: Plugins) -> Make:
    try:
        return _maker(role, plugins.handlers[role])
    except ConfigError as error:
        raise ConfigError(f"plugin {plugins.owner('handler', role)!r}: {error}") from error


def _maker(role: str, value: Any) -> Make:
    if isinstance(value, PerRun):
        _check_complete(value.make)
        return partial(_made, role, value.make)
    if isinstance(value, type) and issubclass(value, Handler):
        _check_complete(value)
        check_made_without_arguments(
            value, f"give an instance, or per_run(lambda: {value.__name__}(...))"
        )
        return value
    if isinstance(value, Handler | FunctionHandler):
        _check_complete(value)
        return lambda: value
    if callable(value) and not isinstance(value, type):
        function = FunctionHandler(value, role=role)
        return lambda: function
    raise ConfigError(
        f"handlers: the value for role {role!r} is not a handler: {value!r:.200}{place_of(value)}"
    )


def _check_complete(value: Any) -> None:
    """Check that a handler, or a class of handlers, has a ``process_batch``."""
    owner = value if isinstance(value, type) else type(value)
    if (
        issubclass(owner, Handler)
        and getattr(value.process_batch, "__func__", value.process_batch) is Handler.process_batch
    ):
        raise wrong_declaration(owner.__name__, "it has no process_batch", owner)


def _made(role: str, make: Callable[[], Any]) -> AnyHandler:
    made = make()
    if not isinstance(made, Handler | FunctionHandler):
        raise ConfigError(
            f"handlers: the value that per_run made for role {role!r} is not a handler:"
            f" {made!r:.200}{place_of(make)}"
        )
    _check_complete(made)
    return made
