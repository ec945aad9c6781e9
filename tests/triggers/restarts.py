"""Triggers over a restart of all processes, for tests on real stores."""

from collections.abc import Callable

import anyio

from flowkit import Client, Coordinator, Trigger
from flowkit.task import TaskView
from tests.builders import graph

ENDS_AT_ONCE = graph({"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}})
LONG = graph({"node_id": "a", "type": "sleep", "io": {"for_sec": 3600}})


async def each_end_makes_one_task(
    coordinator: Callable[[], Coordinator], client: Callable[[], Client]
) -> None:
    """Check that a trigger handles ends that are stored while no coordinator runs, also after a
    pause, and that two coordinators make each task once.
    """
    put = Trigger("t", source="task:etl", graph=ENDS_AT_ONCE, params={"id": "${event.value.id}"})
    async with client() as verbs:
        await verbs.put_trigger(put)
        ended = [await verbs.create_task(graph=LONG, pipeline="etl") for _ in range(2)]
        for task_id in ended:
            await verbs.cancel(task_id)
        await verbs.pause_trigger("t")
        await verbs.resume_trigger("t")
        async with coordinator(), coordinator():
            ended.append(await verbs.create_task(graph=ENDS_AT_ONCE, pipeline="etl"))
            with anyio.fail_after(60):
                while len(made := await _made(verbs)) < 3:
                    await anyio.sleep(0.05)
        assert {one.params["id"] for one in made} == set(ended)
        await verbs.delete_trigger("t")
        assert await verbs.list_triggers() == []


async def _made(verbs: Client) -> list[TaskView]:
    return [one for one in (await verbs.list_tasks()).items if one.trigger == "t"]
