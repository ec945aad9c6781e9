"""Undos and nodes of ``finally`` on a real Kafka and MongoDB, while their processes are killed."""

import pytest

from tests.builders import graph, node
from tests.services.processes import Processes, until
from tests.services.support import Installation

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

WITHIN_SEC = 90
COORDINATOR = {
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 1,
    "heartbeat_hard_sec": 3,
    "lease_ttl_sec": 3,
}
PATIENT = {"max": 20, "backoff_sec": 0.1}
SAGA = graph(
    node("a", undo={"type": "work", "retry_policy": PATIENT}),
    node("b", "work", "a", undo={"type": "hangs_at_first", "retry_policy": PATIENT}),
    node("c", "coordinator_fn", "b", io={"fn": "task.end", "fn_args": {"status": "failed"}}),
    **{"finally": [node("tidy", "hangs_at_first", retry_policy=PATIENT)]},
)


async def test_undos_and_finally_go_on_after_coordinator_and_worker_were_killed(
    installation: Installation, processes: Processes
) -> None:
    async with installation.client() as client:
        task_id = await client.create_task(graph=SAGA)
        for hangs in ("b~undo", "tidy"):
            coordinator = processes.coordinator(**COORDINATOR)
            worker = processes.worker(hb_interval_sec=0.3)
            await until(lambda: hangs in [began[1] for began in processes.recorded("began")])  # noqa: B023
            assert (await client.get_task(task_id)).status == "cancelling"
            coordinator.kill()
            worker.kill()
        processes.coordinator(**COORDINATOR)
        processes.worker(hb_interval_sec=0.3)
        view = await client.wait(task_id, timeout=WITHIN_SEC)
    assert view.status == "failed"
    later = {name: one.status for name, one in view.nodes.items() if one.phase != "main"}
    assert later == {"tidy": "finished", "a~undo": "finished", "b~undo": "finished"}
    # On a busy machine a live worker may be declared lost, so that a node runs again.
    ran = dict.fromkeys(node_id for _, node_id, _, _ in processes.recorded())
    assert [*ran] == ["a", "b", "b~undo", "a~undo", "tidy"]
