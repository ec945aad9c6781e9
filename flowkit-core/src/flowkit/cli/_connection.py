"""Client connections of the verbs."""

from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import typer

from flowkit._user_code.exit_requests import report_exit
from flowkit.cli._log_output import log_verb
from flowkit.cli._options import settings
from flowkit.client import Client
from flowkit.config import CommonConfig, CoordinatorConfig, load_layers
from flowkit.errors import ConfigError

T = TypeVar("T")

NAME_A_STORE = (
    "use --db sqlite:///path or --db mongodb://host/name, set db in a --config file, or set"
    " FLOWKIT_DB"
)


def run_async(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> T:
    """Run the asynchronous part of a verb, in an event loop of asyncio without ``loop_factory``."""
    try:
        return anyio.run(main, backend_options={"loop_factory": loop_factory})
    except (SystemExit, KeyboardInterrupt) as error:
        report_exit(error)
        raise


def closing(items: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """Close the iterator of ``watch`` or ``artifacts`` even if it is not exhausted."""
    return aclosing(cast("AsyncGenerator[T, None]", items))


def configuration(
    config: Path | None,
    db: str | None,
    bus: str | None,
    set_fields: Iterable[str] | None = None,
    **options: Any,
) -> CoordinatorConfig:
    """Load the configuration of an installation. ``options`` are the values of further options.

    Options override the environment, which overrides the file. It is loaded as a coordinator's
    configuration, so that one file is valid for the coordinator and for the verbs.
    """
    overrides = settings(CoordinatorConfig, set_fields, db=db, bus=bus, **options)
    return load_layers(CoordinatorConfig, config, overrides)


def without_creation(cfg: CoordinatorConfig, **options: Any) -> CoordinatorConfig:
    """Return a configuration with which a file that does not exist is an error.

    ``options`` replace other options of files.
    """
    sqlite = {**cfg.options.get("sqlite", {}), "create": False, **options}
    return cfg.model_copy(update={"options": {**cfg.options, "sqlite": sqlite}})


def require_store(cfg: CommonConfig) -> None:
    """Check that a store is configured.

    Raises:
        ConfigError: no store is configured.
    """
    if not cfg.db:
        raise ConfigError(f"no store is configured; {NAME_A_STORE}")


def warn_of_memory(cfg: CommonConfig) -> None:
    """Warn that a store in memory is private to this process."""
    if cfg.db and cfg.db.startswith("memory://"):
        typer.echo(f"warning: {cfg.db} exists only in this process and is lost with it", err=True)


@asynccontextmanager
async def connected(config: Path | None, db: str | None, bus: str | None) -> AsyncIterator[Client]:
    """Open a client of the installation, whose store must exist if it is a file."""
    cfg = without_creation(configuration(config, db, bus))
    require_store(cfg)
    warn_of_memory(cfg)
    log_verb()
    async with Client(cfg=cfg) as client:
        yield client
