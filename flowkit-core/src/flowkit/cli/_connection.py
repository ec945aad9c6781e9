"""From addresses to a client."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import typer

from flowkit._user_code.exit_requests import report_exit
from flowkit.cli._log_output import log_verb
from flowkit.client import Client
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import ConfigError

T = TypeVar("T")


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a verb's asynchronous part."""
    try:
        return anyio.run(main)
    except (SystemExit, KeyboardInterrupt) as error:
        report_exit(error)
        raise


def closing(items: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """Close what a client's ``watch`` or ``artifacts`` gave, also where it is left in the
    middle.
    """
    return aclosing(cast("AsyncGenerator[T, None]", items))


def configuration(config: Path | None, db: str | None, bus: str | None) -> CoordinatorConfig:
    """The configuration of an installation. The options win over the environment, and that over the
    file.

    Read as a coordinator's, so that one file serves the coordinator and the verbs that look after
    it.
    """
    return CoordinatorConfig.load(
        config, overrides={name: value for name, value in (("db", db), ("bus", bus)) if value}
    )


def require_store(cfg: CommonConfig) -> None:
    """Say how to name a store, if none is named.

    Raises:
        ConfigError: none is.
    """
    if not cfg.db:
        raise ConfigError(
            "no store is given: use --db mongodb://host/name, or set db in a file for --config, or"
            " FLOWKIT_DB"
        )


def warn_of_memory(cfg: CommonConfig) -> None:
    """Say that an address in memory is this process's own."""
    if cfg.db and cfg.db.startswith("memory://"):
        typer.echo(f"warning: {cfg.db} is seen by this process alone, and ends with it", err=True)


@asynccontextmanager
async def connected(config: Path | None, db: str | None, bus: str | None) -> AsyncIterator[Client]:
    """A client of the installation."""
    cfg = configuration(config, db, bus)
    require_store(cfg)
    warn_of_memory(cfg)
    log_verb()
    async with Client(cfg=cfg) as client:
        yield client
