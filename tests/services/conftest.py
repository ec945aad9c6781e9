"""An installation on the servers that the tests share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.services.processes import Processes
from tests.services.support import QUICK_KAFKA, Installation


@pytest.fixture
async def installation(kafka_address: str, mongo_address: str) -> AsyncIterator[Installation]:
    installation = Installation(kafka=kafka_address, mongo=mongo_address, kafka_options=QUICK_KAFKA)
    yield installation
    await installation.drop()


@pytest.fixture
def processes(installation: Installation, tmp_path: Path) -> Iterator[Processes]:
    with Processes(installation, tmp_path) as processes:
        yield processes
