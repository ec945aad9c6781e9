"""Segments on a real Kafka and MongoDB, while their processes are killed."""

import pytest

from tests.services.processes import Processes
from tests.services.segment_kills import a_chain_goes_on_after_its_processes_were_killed
from tests.services.support import Installation

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


async def test_a_segment_goes_on_after_worker_and_coordinator_were_killed(
    installation: Installation, processes: Processes
) -> None:
    async with installation.client() as client:
        await a_chain_goes_on_after_its_processes_were_killed(client, processes, "safe")
