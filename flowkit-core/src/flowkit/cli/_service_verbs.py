"""Verbs that run a service: ``coordinator`` and ``worker``."""

import logging
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from flowkit import __version__
from flowkit._runtime.garbage_collection import rare_collections
from flowkit._runtime.process_exit import end_process_soon
from flowkit._text.redaction import redacted
from flowkit.cli import _options as options
from flowkit.cli._connection import require_store, run_async, warn_of_memory
from flowkit.cli._errors import USAGE
from flowkit.cli._loader import load_handlers
from flowkit.cli._log_output import Level, log_service
from flowkit.config import CommonConfig, CoordinatorConfig, WorkerConfig, load_layers
from flowkit.coordinator import Coordinator
from flowkit.errors import ConfigError, FlowKitError
from flowkit.worker import Worker

logger = logging.getLogger(__name__)

LogLevel = Annotated[Level, typer.Option("--log-level", help="Lowest level that is logged.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log one JSON object per line.")]


def coordinator(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    set_fields: options.Set = None,
    metrics_port: options.MetricsPort = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run a coordinator until SIGTERM or SIGINT.

    A second signal stops it immediately. Several coordinators can share one installation.
    """
    overrides = options.settings(
        CoordinatorConfig, set_fields, db=db, bus=bus, metrics_port=metrics_port
    )
    cfg = load_layers(CoordinatorConfig, config, overrides)
    require_store(cfg)
    log_service(log_level, as_json=log_json)
    log_installation("coordinator", cfg)
    warn_of_memory(cfg)

    async def main() -> None:
        await Coordinator(cfg=cfg).run()

    run_service(main)


def worker(
    handlers: options.Handlers = None,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--roles",
            metavar="ROLE[,ROLE]",
            help="Serve only these roles, including those of plugins; repeatable.",
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    set_fields: options.Set = None,
    metrics_port: options.MetricsPort = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    It then accepts no more work, gives its runs `stop_grace_sec` to end, and hands back the others.
    A second signal stops it immediately.
    """
    chosen = [role for text in roles or () for role in options.split(text)]
    overrides = options.settings(
        WorkerConfig, set_fields, db=db, bus=bus, roles=chosen, metrics_port=metrics_port
    )
    cfg = load_layers(WorkerConfig, config, overrides)
    require_store(cfg)
    if not handlers and not cfg.roles:
        raise ConfigError(
            "a worker needs handlers; use --handlers module:attr, or --roles for those of plugins"
        )
    found = load_handlers(handlers or ())
    log_service(log_level, as_json=log_json)
    log_installation("worker", cfg)
    warn_of_memory(cfg)

    async def main() -> None:
        await Worker(cfg=cfg, handlers=found).run()

    run_service(main)


def log_installation(name: str, cfg: CommonConfig) -> None:
    """Log the store, bus and namespace of this process as its first line."""
    logger.info(
        "FlowKit %s %s: store %s, bus %s, namespace %s, event loop %s",
        __version__,
        name,
        redacted(cfg.db or ""),
        redacted(cfg.bus_address()),
        cfg.namespace,
        "asyncio" if service_loop() is None else "uvloop",
        extra={"action": "process_started"},
    )


def service_loop() -> Callable[[], AbstractEventLoop] | None:
    """Return the factory of the event loop of services: None means asyncio, without uvloop."""
    try:
        from flowkit._runtime.service_loop import ServiceLoop
    except ImportError:
        return None
    return ServiceLoop


def run_service(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service and close its event loop, which is that of uvloop where it is installed.

    Closing waits for the executors that handlers use. If that takes too long, the process exits.
    """
    closing: list[threading.Event] = []

    async def to_the_end() -> None:
        status = 1
        try:
            with rare_collections():
                await main()
            status = 0
        except FlowKitError:
            status = USAGE
            raise
        finally:
            closing.append(end_process_soon(status))

    try:
        run_async(to_the_end, loop_factory=service_loop())
    finally:
        for closed in closing:
            closed.set()
