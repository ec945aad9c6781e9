"""A task that waits while its processes are killed."""

from typing import Any

import pytest

from flowkit import Client, TaskView
from flowkit.errors import AlreadyDecided
from tests.builders import graph, node
from tests.services.processes import Process, Processes

FLOW = graph(
    node("nap", "sleep", io={"for_sec": "${params.seconds}"}),
    node("early", "wait_signal", io={"signal": "early"}),
    node("late", "wait_signal", "nap", io={"signal": "late", "schema": {"type": "integer"}}),
    node("ok", "approval", io={"prompt": "Go on?"}),
    node("end", "coordinator_fn", "early", "late", "ok", io={"fn": "noop"}),
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
    await waiting(client, task_id, "nap", "early", "ok")
    coordinator.kill()
    for _ in range(2):
        await client.signal(task_id, "early", {"from": "outside"}, signal_id="first")
        await client.signal(task_id, "late", 7, signal_id="second")
    await decide_once(client, task_id)
    coordinator = await started(processes)
    view = await client.wait(task_id, timeout=WITHIN_SEC)
    coordinator.kill()
    return view


async def decide_once(client: Client, task_id: str) -> None:
    """Decide about the approval that is listed, and find that a later decision is refused."""
    (approval,) = (await client.approvals()).items
    assert (approval.task_id, approval.prompt) == (task_id, "Go on?")
    await client.decide(task_id, approval.node_id, "approve", by="ann")
    with pytest.raises(AlreadyDecided, match="'approve' by 'ann'"):
        await client.decide(task_id, approval.node_id, "reject", by="bob")


def outcome(view: TaskView) -> dict[str, Any]:
    found = {node_id: (str(one.status), one.result) for node_id, one in view.nodes.items()}
    status, decision = found.pop("ok")
    return found | {"ok": (status, decision["choice"])}


EXPECTED = {
    "nap": ("finished", None),
    "early": ("finished", {"from": "outside"}),
    "late": ("finished", 7),
    "ok": ("finished", "approve"),
    "end": ("finished", None),
}
