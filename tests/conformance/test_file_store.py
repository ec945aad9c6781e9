"""The suites run a store from several processes: a store in a file passes without a server."""

from pathlib import Path

import pytest

from flowkit.protocols import ArtifactStore
from flowkit_testing.conformance import Opener
from flowkit_testing.conformance._artifact_processes import ArtifactProcesses
from flowkit_testing.conformance._store_processes import Processes
from tests.conformance.file_store import FileStore


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


class TestFileStore(Processes):
    """The suite of stores, on the store in a file."""

    @pytest.fixture
    def store(self, path: str) -> FileStore:
        return FileStore(path)

    @pytest.fixture
    def opener(self, path: str) -> Opener:
        return Opener("tests.conformance.file_store:open_file", ("FileStore", path))


class TestFileArtifacts(ArtifactProcesses):
    """The suite of artifact stores, on the store in a file."""

    @pytest.fixture
    def artifacts(self, path: str) -> ArtifactStore:
        return FileStore(path).artifacts

    @pytest.fixture
    def opener(self, path: str) -> Opener:
        return Opener("tests.conformance.file_store:open_file_artifacts", ("FileStore", path))
