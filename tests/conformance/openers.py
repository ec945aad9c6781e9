"""Functions with which other processes open the stores and buses of these tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flowkit import CoordinatorConfig
from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore
from flowkit_sqlite import SqliteBus

QUICK_SQLITE: dict[str, Any] = {"lease_sec": 1.5, "broadcast_kept": 1_000}


def open_mongo(address: str) -> MongoStore:
    return MongoStore(address)


@asynccontextmanager
async def open_mongo_artifacts(address: str) -> AsyncIterator[ArtifactStore]:
    async with open_mongo(address) as store:
        yield store.artifacts


def open_sqlite_bus(path: str, **fields: Any) -> SqliteBus:
    return SqliteBus(
        f"sqlite:///{path}", CoordinatorConfig(options={"sqlite": QUICK_SQLITE}, **fields)
    )
