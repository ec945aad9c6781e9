"""Toolkit of packages that add verbs to the command line.

Such a package has an entry point in the group ``flowkit.verbs``, which names a list of
:class:`Verb`. The command line imports the list whenever it starts, so import what takes long
inside of the functions.
"""

import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from flowkit._backends import metrics_server
from flowkit._dead_letters.webhook_letters import WebhookLetters
from flowkit._runtime.signals import signals_received
from flowkit.cli import _connection, _service_verbs
from flowkit.cli._connection import configuration, require_store, warn_of_memory, without_creation
from flowkit.cli._log_output import Level, log_service
from flowkit.cli._options import Bus, Config, Db, Json, MetricsPort, Set
from flowkit.cli._output import console, print_json, table
from flowkit.cli._service_verbs import LogJson, LogLevel, log_installation
from flowkit.cli._verb import Verb
from flowkit.client import Client
from flowkit.config import CoordinatorConfig

T = TypeVar("T")


def with_client(
    use: Callable[[Client], Coroutine[Any, Any, T]],
    *,
    config: Path | None,
    db: str | None,
    bus: str | None,
) -> T:
    """Call a function with a client of the installation, and return its result.

    Raises:
        ConfigError: no store is configured, or its file does not exist.
    """

    async def main() -> T:
        async with _connection.connected(config, db, bus) as client:
            return await use(client)

    return _connection.run_async(main)


def run_service(
    name: str,
    main: Callable[[CoordinatorConfig], Coroutine[Any, Any, None]],
    *,
    config: Path | None,
    db: str | None,
    bus: str | None,
    log_level: Level,
    log_json: bool,
    set_fields: Sequence[str] | None = None,
    metrics_port: int | None = None,
) -> None:
    """Run a service with the configuration of the installation, and with the log of a service.
    ``set_fields`` are the values of ``--set``.

    Raises:
        ConfigError: no store is configured.
    """
    cfg = without_creation(configuration(config, db, bus, set_fields, metrics_port=metrics_port))
    require_store(cfg)
    log_service(log_level, as_json=log_json)
    log_installation(name, cfg)
    warn_of_memory(cfg)

    async def run() -> None:
        await main(cfg)

    _service_verbs.run_service(run)


@contextmanager
def stopped_by_signals(stop: Callable[[], None], *, patience_sec: float) -> Iterator[None]:
    """Call ``stop`` when SIGTERM, SIGINT or SIGHUP arrives.

    The process is ended by the second signal, or if it has not ended after ``patience_sec``.
    """

    def on_signal(number: signal.Signals) -> None:
        stop()

    with signals_received(on_signal, patience_sec=patience_sec, return_sec=patience_sec):
        yield


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Print a table to stdout, or the text ``empty`` if it has no rows."""
    console().print(table(None, columns, rows) if rows else empty)


__all__ = [
    "Bus",
    "Config",
    "Db",
    "Json",
    "Level",
    "LogJson",
    "LogLevel",
    "MetricsPort",
    "Set",
    "Verb",
    "WebhookLetters",
    "metrics_server",
    "print_json",
    "print_table",
    "run_service",
    "stopped_by_signals",
    "with_client",
]
