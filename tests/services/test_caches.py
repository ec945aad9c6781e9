"""Cached results over a real Kafka and a real MongoDB."""

import pytest

from tests.caches.shared_results import Fetcher, one_result_is_shared
from tests.services.support import Installation

pytestmark = pytest.mark.services


async def test_one_result_is_shared_until_it_is_deleted(installation: Installation) -> None:
    fetcher = Fetcher()
    async with (
        installation.coordinator() as one,
        installation.client() as other,
        installation.worker(fetcher.handlers),
    ):
        await one_result_is_shared(one, other, fetcher)
