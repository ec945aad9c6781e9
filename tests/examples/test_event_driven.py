"""The example that makes a task of each event."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from examples.event_driven.flow import on_event
from examples.event_driven.handlers import event_handlers
from examples.event_driven.source import Event, submit
from flowkit import TaskRefused, WorkerConfig
from flowkit_testing import Cluster
from flowkit_testing.simulation import SimCluster, simulate


class Plant:
    """Devices, and their stored events in the order in which they were stored."""

    def __init__(self) -> None:
        self.limits, self.stored, self.alerts = {"pump-1": 80.0}, dict[str, Any](), dict[str, str]()
        self.handlers = event_handlers(self.limits, self.stored, self.alerts)


def event(
    number: int, *, device: str = "pump-1", kind: Any = "reading", value: float = 60
) -> Event:
    return Event(id=f"ev-{number}", device=device, kind=kind, value=value)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Cluster, Plant]]:
    plant = Plant()
    async with Cluster(handlers=plant.handlers) as cluster:
        yield cluster, plant


async def test_an_event_that_comes_twice_makes_one_task():
    async with running() as (cluster, plant):
        task_ids = [await submit(cluster.client, event(1)) for _ in range(3)]
        await cluster.client.wait(task_ids[0])
        again = await submit(cluster.client, event(1))
        page = await cluster.client.list_tasks(pipeline="events")

    assert {*task_ids, again} == {page.items[0].id}
    assert len(page.items) == 1
    assert plant.stored == {"ev-1": event(1).model_dump()}


async def test_another_event_with_the_same_id_is_refused():
    async with running() as (cluster, _):
        await submit(cluster.client, event(1))
        with pytest.raises(TaskRefused, match="event-ev-1"):
            await submit(cluster.client, event(1, value=61))


async def test_an_alert_is_raised_only_for_a_value_above_the_limit():
    async with running() as (cluster, plant):
        for number, value in enumerate((80, 81)):
            view = await cluster.client.wait(
                await submit(cluster.client, event(number, value=value))
            )
            assert view.status == "finished"

    assert plant.alerts == {"ev-1": "pump-1: 81 is above 80"}


async def test_waiting_alarms_are_handled_before_readings():
    plant = Plant()
    async with Cluster() as cluster:
        kinds = ["reading", "reading", "reading", "alarm"]
        task_ids = [
            await submit(cluster.client, event(number, kind=kind))
            for number, kind in enumerate(kinds)
        ]
        await cluster.clock.sleep(1)
        await cluster.add_worker(plant.handlers, WorkerConfig(max_concurrency=1))
        for task_id in task_ids:
            await cluster.client.wait(task_id)
        alarms = (await cluster.client.list_tasks(labels={"kind": "alarm"})).items

    assert next(iter(plant.stored)) == "ev-3"
    assert [task.id for task in alarms] == [task_ids[3]]


async def test_an_event_of_an_unknown_device_is_handled_once_the_device_is_known():
    async with running() as (cluster, plant):
        view = await cluster.client.wait(await submit(cluster.client, event(1, device="pump-9")))
        letters = (await cluster.client.dead_letters(task_id=view.id)).items
        assert (view.status, [letter.reason_code for letter in letters], plant.stored) == (
            "failed",
            ["unknown_device"],
            {},
        )

        plant.limits["pump-9"] = 50
        await cluster.client.retry_dead_letters([letter.letter_id for letter in letters])
        view = await cluster.client.wait(view.id)

    assert view.status == "finished"
    assert plant.alerts == {"ev-1": "pump-9: 60 is above 50"}


def test_every_event_is_stored_under_faults():
    async def scenario(cluster: SimCluster) -> None:
        plant = Plant()
        for _ in range(2):
            await cluster.add_worker(plant.handlers)
        patient = on_event().to_dict()
        for node in patient["nodes"]:
            node["retry_policy"] = {"max": 30, "backoff_sec": 1}
        for number in range(3):
            sent = event(number, value=70 + 10 * number)
            view = await cluster.run(
                patient, params=sent.model_dump(), idempotency_key=f"event-{sent.id}"
            )
            cluster.assert_finished(view)
        assert sorted(plant.stored) == ["ev-0", "ev-1", "ev-2"]
        assert list(plant.alerts) == ["ev-2"]

    simulate(scenario, seeds=6, faults="all")
