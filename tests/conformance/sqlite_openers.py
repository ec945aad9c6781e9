"""Functions with which other processes open SQLite files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flowkit.protocols import ArtifactStore
from flowkit_sqlite import SqliteStore


def open_store(address: str) -> SqliteStore:
    return SqliteStore(address)


@asynccontextmanager
async def open_artifacts(address: str) -> AsyncIterator[ArtifactStore]:
    async with open_store(address) as store:
        yield store.artifacts
