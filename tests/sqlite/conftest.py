"""A file in a temporary folder, and its open database."""

from pathlib import Path

import pytest

from flowkit_sqlite import SqliteConfig
from flowkit_sqlite._database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flowkit.db"


@pytest.fixture
async def database(anyio_backend: str, path: Path):
    async with Database(path, SqliteConfig()) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word TEXT UNIQUE)"))
        yield database
