"""Workers and coordinators that are killed within a segment."""

from typing import Any

from flowkit import Client
from flowkit._records.task_records import decode_task
from tests.builders import graph, node
from tests.services.processes import Processes, until

WITHIN_SEC = 90
COORDINATOR = {
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 1,
    "heartbeat_hard_sec": 2,
    "lease_ttl_sec": 2,
}
PATIENT: dict[str, Any] = {"retry_policy": {"max": 20, "backoff_sec": 0.1}}


def chain(mode: str) -> dict[str, Any]:
    return graph(
        node("a", **PATIENT),
        node("b", "work", "a", io={"input_inline": "${results.a}"}, **PATIENT),
        node("c", "hangs_at_first", "b", **PATIENT),
        node("d", "work", "c", **PATIENT),
        segments=mode,
    )


async def a_chain_goes_on_after_its_processes_were_killed(
    client: Client, processes: Processes, mode: str
) -> None:
    """Kill the worker in the third node of a segment, and the coordinator with it."""
    task_id = await client.create_task(graph=chain(mode))
    coordinator = processes.coordinator(**COORDINATOR)
    worker = processes.worker(hb_interval_sec=0.3)
    await until(lambda: "c" in [began[1] for began in processes.recorded("began")])
    await until_running(client, task_id, "c")
    worker.kill()
    coordinator.kill()
    processes.coordinator(**COORDINATOR)
    processes.worker(hb_interval_sec=0.3)
    view = await client.wait(task_id, timeout=WITHIN_SEC)
    assert view.status == "finished"
    assert [view.nodes[name].attempt for name in "abcd"] == [1, 1, 2, 1]
    ran = [(name, attempt) for _, name, attempt, _ in processes.recorded()]
    assert ran == [("a", 1), ("b", 1), ("c", 2), ("d", 1)]
    assert await nodes_in_segments(client, task_id) == ["b", "c"]


async def until_running(client: Client, task_id: str, node_id: str) -> None:
    """Wait until the start of a node is stored."""
    async for event in client.watch(task_id):
        if (event.node_id, event.status) == (node_id, "running"):
            return


async def nodes_in_segments(client: Client, task_id: str) -> list[str]:
    """Return the nodes of which an attempt began within a segment."""
    store = client.store
    task = decode_task((await store.load([task_id]))[task_id], to_look_at=True)
    ids = task.spec.plan.ids
    return [ids[index] for index, one in sorted(task.records.items()) if one.segment is not None]
