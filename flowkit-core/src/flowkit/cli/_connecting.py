"""From addresses to a client."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio

from flowkit.client import Client
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import ConfigError

T = TypeVar("T")


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a verb's asynchronous part."""
    return anyio.run(main)


def configuration(config: Path | None, db: str | None, bus: str | None) -> CoordinatorConfig:
    """The configuration of an installation. The options win over the environment, and that over the file.

    Read as a coordinator's, so that one file serves the coordinator and the verbs that look after it.
    """
    return CoordinatorConfig.load(config, overrides={name: value for name, value in (("db", db), ("bus", bus)) if value})


def require_store(cfg: CommonConfig) -> None:
    """Say how to name a store, if none is named.

    Raises:
        ConfigError: none is.
    """
    if not cfg.db:
        raise ConfigError("no store is given: use --db mongodb://host/name, or set db in a file for --config, or FLOWKIT_DB")


@asynccontextmanager
async def connected(config: Path | None, db: str | None, bus: str | None) -> AsyncIterator[Client]:
    """A client of the installation."""
    cfg = configuration(config, db, bus)
    require_store(cfg)
    async with Client(cfg=cfg) as client:
        yield client
