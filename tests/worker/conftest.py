from collections.abc import AsyncIterator

import pytest

from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock
from tests.worker.bench import Bench, open_bench


@pytest.fixture
async def bench(
    flowkit_bus: InMemoryBus, flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> AsyncIterator[Bench]:
    async with open_bench(flowkit_bus, flowkit_store, flowkit_clock) as bench:
        yield bench
