"""Functions that open SQLite files, also in other processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flowkit.protocols import ArtifactStore
from flowkit_sqlite import SqliteConfig, SqliteStore

UNSYNCED = SqliteConfig(synchronous="normal")
"""Settings of tests whose results do not depend on what the disk confirms: they save its time."""


def open_store(address: str, **fields: Any) -> SqliteStore:
    return SqliteStore(address, config=UNSYNCED, **fields)


@asynccontextmanager
async def open_artifacts(address: str) -> AsyncIterator[ArtifactStore]:
    async with open_store(address) as store:
        yield store.artifacts
