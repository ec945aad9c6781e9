"""Functions with which other processes open the stores of these tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore


def open_mongo(address: str) -> MongoStore:
    return MongoStore(address)


@asynccontextmanager
async def open_mongo_artifacts(address: str) -> AsyncIterator[ArtifactStore]:
    async with open_mongo(address) as store:
        yield store.artifacts
