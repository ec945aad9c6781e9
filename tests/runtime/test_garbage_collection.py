"""The settings of the garbage collector belong to the process: only FlowKit's own processes change
them.
"""

import gc

import anyio.lowlevel

from flowkit import Coordinator
from flowkit._runtime.garbage_collection import THRESHOLDS
from flowkit.cli._service_verbs import run_service


async def test_a_coordinator_that_runs_in_a_program_leaves_the_garbage_collector_alone() -> None:
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    coordinator = Coordinator(db="memory://garbage-collection")
    async with anyio.create_task_group() as group:
        group.start_soon(coordinator.run)
        while coordinator._life.state != "open":
            await anyio.lowlevel.checkpoint()
        assert gc.get_threshold() == thresholds
        assert gc.get_freeze_count() <= frozen  # objects of the test session may be deleted
        group.cancel_scope.cancel()


def test_a_service_of_the_command_line_collects_garbage_rarely() -> None:
    during = []

    async def main() -> None:
        during.append(gc.get_threshold())

    before = gc.get_threshold()
    run_service(main)
    assert during == [THRESHOLDS]
    assert gc.get_threshold() == before
