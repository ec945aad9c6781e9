"""Tasks that wait on a real Kafka and MongoDB, while their processes are killed."""

import pytest

from tests.services.processes import Processes
from tests.services.support import Installation
from tests.services.waiting import EXPECTED, outcome, wait_through_kills
from tests.services.waiting_patterns import CASES, finished_through_kills
from tests.services.waiting_subflows import subflows_through_kills

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


async def test_a_task_waits_while_its_coordinators_are_killed(
    installation: Installation, processes: Processes
) -> None:
    async with installation.client() as client:
        assert outcome(await wait_through_kills(processes, client)) == EXPECTED


async def test_each_pattern_that_waits_goes_on_after_its_processes_were_killed(
    installation: Installation, processes: Processes
) -> None:
    async with installation.client() as client:
        found = await finished_through_kills(processes, client)
    assert found == [case.finishes for case in CASES]


async def test_subflows_go_on_after_the_processes_were_killed_while_their_child_tasks_waited(
    installation: Installation, processes: Processes
) -> None:
    async with installation.client() as client:
        await subflows_through_kills(processes, client)
