"""The published suites of stores and artifact stores, on an SQLite file."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flowkit.protocols import ArtifactStore
from flowkit_sqlite import SqliteStore
from flowkit_testing.conformance import ArtifactStoreConformance, Opener, StoreConformance
from flowkit_testing.conformance._artifact_suite import OpenArtifacts
from tests.conformance.sqlite_openers import open_artifacts, open_store


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'flowkit.db'}"


@pytest.fixture
async def store(anyio_backend: str, address: str) -> AsyncIterator[SqliteStore]:
    async with open_store(address) as store:
        yield store


class TestSqliteStore(StoreConformance):
    """The suite of stores, on an SQLite file."""

    @pytest.fixture
    async def store(self, store: SqliteStore) -> SqliteStore:
        return store

    @pytest.fixture
    def open_store(self, address: str) -> Callable[[], SqliteStore]:
        return lambda: open_store(address)

    @pytest.fixture
    def open_namespace(self, address: str) -> Callable[[str], SqliteStore]:
        return lambda namespace: open_store(address, namespace=namespace)

    @pytest.fixture
    def opener(self, address: str) -> Opener:
        return Opener("tests.conformance.sqlite_openers:open_store", (address,))


class TestSqliteArtifactStore(ArtifactStoreConformance):
    """The suite of artifact stores, on an SQLite file."""

    @pytest.fixture
    async def artifacts(self, store: SqliteStore) -> ArtifactStore:
        return store.artifacts

    @pytest.fixture
    def open_artifacts(self, address: str) -> OpenArtifacts:
        return lambda: open_artifacts(address)

    @pytest.fixture
    def opener(self, address: str) -> Opener:
        return Opener("tests.conformance.sqlite_openers:open_artifacts", (address,))
