"""A task that waits while its processes are killed."""

from typing import Any

from flowkit import Client, TaskView
from tests.builders import graph, node
from tests.services.processes import Process, Processes

FLOW = graph(
    node("nap", "sleep", io={"for_sec": "${params.seconds}"}),
    node("early", "wait_signal", io={"signal": "early"}),
    node("late", "wait_signal", "nap", io={"signal": "late", "schema": {"type": "integer"}}),
    node("end", "coordinator_fn", "early", "late", io={"fn": "noop"}),
)
WITHIN_SEC = 60


async def started(processes: Processes) -> Process:
    return await processes.coordinator(scheduler_tick_sec=0.5).until("coordinator_ready")


async def waiting(client: Client, task_id: str, *node_ids: str) -> None:
    """Return when these nodes wait."""
    async for event in client.watch(task_id):
        if event.node_id in node_ids and "waiting" in dict(event.data or {}):
            node_ids = tuple(one for one in node_ids if one != event.node_id)
        if not node_ids:
            return


async def wait_through_kills(processes: Processes, client: Client) -> TaskView:
    """Kill the coordinator whenever the task waits, and signal it while none runs."""
    coordinator = await started(processes)
    task_id = await client.create_task(graph=FLOW, params={"seconds": 1.0})
    await waiting(client, task_id, "nap", "early")
    coordinator.kill()
    for _ in range(2):
        await client.signal(task_id, "early", {"from": "outside"}, signal_id="first")
        await client.signal(task_id, "late", 7, signal_id="second")
    coordinator = await started(processes)
    view = await client.wait(task_id, timeout=WITHIN_SEC)
    coordinator.kill()
    return view


def outcome(view: TaskView) -> dict[str, Any]:
    return {node_id: (str(one.status), one.result) for node_id, one in view.nodes.items()}


EXPECTED = {
    "nap": ("finished", None),
    "early": ("finished", {"from": "outside"}),
    "late": ("finished", 7),
    "end": ("finished", None),
}
