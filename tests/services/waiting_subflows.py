"""Sub-flows, plain, mapped and mapped over artifacts, and loops, whose child tasks wait while the
processes are killed.
"""

from typing import Any

import anyio

from flowkit import Client, TaskView
from flowkit.errors import TaskNotFound
from tests.builders import graph, node
from tests.services.processes import Process, Processes, until
from tests.services.waiting import waiting

WITHIN_SEC = 150
PATIENT = {"max": 20, "backoff_sec": 0.1}
SETTINGS = {
    "scheduler_tick_sec": 0.5,
    "heartbeat_soft_sec": 1,
    "heartbeat_hard_sec": 3,
    "lease_ttl_sec": 3,
    "cancel_grace_sec": 1,
}


def subflow(node_id: str, inner: Any, **fields: Any) -> dict[str, Any]:
    params = {"n": fields.pop("n", "${item}" if "map" in fields else 7)}
    return node(node_id, "subflow", io={"graph": inner, "params": params}, **fields)


def after(wait: dict[str, Any]) -> dict[str, Any]:
    """Return a graph that waits, and then runs a node."""
    work = node("x", "work", wait["node_id"], io={"input_inline": "${params.n}"})
    return graph(wait, work | {"retry_policy": PATIENT}, output="${results.x}")


ASKS = after(node("ask", "approval", io={"prompt": "${string(params.n)}"}))
SIGNALLED = after(node("go", "wait_signal", io={"signal": "go"}))
HANGS = graph(
    node("nap", "sleep", io={"for_sec": 0.5}),
    node("hang", "hangs_at_first", "nap", retry_policy=PATIENT),
)
ROUNDS = {"graph": SIGNALLED, "params": {"n": "${iteration}"}, "until": "iteration == 1"}
SCANS = {"map": {"over": {"artifacts": "pages"}}, "n": "${item.page}"}
FLOW = graph(
    subflow("plain", SIGNALLED),
    subflow("mapped", ASKS, map={"over": [1, 2, 3]}),
    subflow("deep", graph(subflow("low", HANGS))),
    node("pages", "pages", io={"input_inline": 2}),
    subflow("scans", ASKS, depends_on=["pages"], **SCANS),
    node("rounds", "loop", io=ROUNDS),
    output={
        name: f"${{results.{name}}}" for name in ("plain", "mapped", "deep", "scans", "rounds")
    },
)
RESULT = {
    "plain": 7,
    "mapped": [1, 2, 3],
    "deep": {"low": {"hang": None}},
    "scans": [0, 1],
    "rounds": 1,
}
TASKS = 11
"""The task of the flow, and its child tasks."""
WAITS = {
    "plain": "go",
    "rounds": "go",
    **{f"mapped[{number}]": "ask" for number in range(3)},
    **{f"scans[{number}]": "ask" for number in range(2)},
}
"""Nodes that wait, by the node that runs their child task."""


async def started(processes: Processes) -> list[Process]:
    members = [processes.coordinator(**SETTINGS), processes.worker(hb_interval_sec=0.3)]
    await members[0].until("coordinator_ready")
    return members


async def child_of(client: Client, task_id: str, node_id: str) -> str:
    """Return the id of a child task once it is stored."""
    while True:
        one = (await client.get_task(task_id)).nodes.get(node_id)
        try:
            return (await client.get_task((one and one.child_task_id) or "none yet")).id
        except TaskNotFound:
            await anyio.sleep(0.02)


async def all_waiting(client: Client, task_id: str) -> dict[str, str]:
    """Return the child tasks that wait, once all of them do, by the node that runs each."""
    children = {node_id: await child_of(client, task_id, node_id) for node_id in WAITS}
    for node_id, child_id in children.items():
        await waiting(client, child_id, WAITS[node_id])
    return children


async def next_round_waiting(client: Client, task_id: str, before: str) -> str:
    """Return the task of the round after this one when it waits."""
    while (child_id := await child_of(client, task_id, "rounds")) == before:
        await anyio.sleep(0.02)
    await waiting(client, child_id, WAITS["rounds"])
    return child_id


async def finished(client: Client, task_id: str, *node_ids: str) -> None:
    """Return when these nodes have finished."""
    left = set(node_ids)
    async for event in client.watch(task_id):
        if event.status == "finished":
            left.discard(event.node_id or "")
        if not left:
            return


async def subflows_through_kills(processes: Processes, client: Client) -> None:
    """Kill all processes twice while child tasks wait and one runs a handler; answer, and cancel
    another task, while no process runs. Check that each child task exists once and that its end
    reaches its parent.
    """
    with anyio.fail_after(WITHIN_SEC):
        members = await started(processes)
        task_id = await client.create_task(graph=FLOW)
        stopped = await client.create_task(graph=FLOW)
        children = await all_waiting(client, task_id)
        stopping = await all_waiting(client, stopped)
        await until(lambda: len({task for task, *_ in processes.recorded("began")}) == 2)
        kill(members)

        for node_id in ("plain", "rounds"):
            await client.signal(children[node_id], "go")
        for node_id in ("mapped[2]", "mapped[0]", "scans[1]"):
            await client.decide(children[node_id], "ask", "approve", by="ann")
        await client.cancel(stopped, "enough")
        members = await started(processes)
        await finished(client, task_id, "plain", "deep", "mapped[0]", "mapped[2]", "scans[1]")
        children["rounds"] = await next_round_waiting(client, task_id, children["rounds"])
        assert (await client.wait(stopped)).status == "cancelled"
        kill(members)

        for node_id in ("mapped[1]", "scans[0]"):
            await client.decide(children[node_id], "ask", "approve", by="ann")
        await client.signal(children["rounds"], "go")
        members = await started(processes)
        view = await client.wait(task_id)
        kill(members)
    assert (view.status, view.result) == ("finished", RESULT)
    assert {one: view.nodes[one].child_task_id for one in children} == children
    tasks = {one.id: one for one in (await client.list_tasks(limit=100)).items}
    of_task = [one for one in tasks.values() if root(one, tasks) == task_id]
    of_stopped = [one for one in tasks.values() if root(one, tasks) == stopped]
    assert [one.status for one in of_task] == ["finished"] * TASKS
    assert {one.id for one in of_stopped if one.status == "cancelled"} > {*stopping.values()}
    assert all(one.status.terminal for one in of_stopped)
    assert (len(of_stopped), len(tasks)) == (TASKS - 1, 2 * TASKS - 1)  # of one round


def kill(members: list[Process]) -> None:
    for process in members:
        process.kill()


def root(view: TaskView, tasks: dict[str, TaskView]) -> str:
    """Return the task at the top, of which this one is a child task over any number of levels."""
    return view.id if view.parent is None else root(tasks[view.parent], tasks)
