"""Messages that the bus confirms and then loses.

They are detected by comparing offsets within seconds, without waiting for time-outs.
"""

import random
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import BusUnavailable
from flowkit.messages import (
    AskRun,
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeSucceeded,
    RunNode,
)
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import chain
from tests.coordinator.lost_messages import (
    COMMANDS,
    COORDINATOR,
    EVENTS,
    PARTITIONS,
    Recording,
    Work,
    cluster_of,
    first,
    wide,
)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_confirmed_command_that_the_bus_loses_is_sent_again_in_seconds(times: int) -> None:
    bus, work = Recording(), Work()
    bus.loses = first(RunNode, times=times)
    async with cluster_of(bus, work) as cluster:
        began = cluster.clock.monotonic()
        view = await cluster.run(chain("work", "work") | {"segments": "off"})
        took = cluster.clock.monotonic() - began
    assert (view.status, view.nodes["n0"].attempt) == ("finished", 1)
    assert work.runs == {"n0": 1, "n1": 1}
    assert bus.count(RunNode) == 2 + times
    assert took <= times * 5 * COORDINATOR.command_check_sec


async def test_a_lost_command_is_found_by_a_coordinator_that_did_not_send_it() -> None:
    bus, work = Recording(), Work()
    bus.loses = first(RunNode)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(6)
        await cluster.coordinators.pop().stop()
        await cluster.add_coordinator()
        began = cluster.clock.monotonic()
        assert (await cluster.client.wait(task_id, 600)).status == "finished"
    assert (work.runs, bus.count(RunNode)) == ({"n0": 1}, 2)
    assert cluster.clock.monotonic() - began < 60


async def test_a_command_that_was_never_sent_is_sent() -> None:
    bus, work = Recording(), Work()
    async with cluster_of(bus, work, coordinators=0) as cluster:
        coordinator = await cluster.add_coordinator()
        # It dies between the commit and the publish request.
        coordinator._scheduler.outbox.carry_out = lambda effects: anyio.sleep_forever()
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(1)
        await cluster.coordinators.pop().stop()
        assert bus.count(RunNode) == 0
        await cluster.add_coordinator()
        assert (await cluster.client.wait(task_id, 60)).status == "finished"
    assert (work.runs, bus.count(RunNode)) == ({"n0": 1}, 1)


@pytest.mark.parametrize("lost", [NodeStarted, NodeSucceeded])
async def test_a_confirmed_report_that_the_bus_loses_is_asked_for(lost: type) -> None:
    bus, work = Recording(), Work(seconds=5)
    bus.loses = first(lost)
    async with cluster_of(bus, work) as cluster:
        view = await cluster.run(chain("work", "work"), timeout=120)
    assert (view.status, view.nodes["n0"].attempt) == ("finished", 1)
    assert work.runs == {"n0": 1, "n1": 1}


async def test_all_reports_of_a_short_run_may_be_lost() -> None:
    bus, work = Recording(), Work()
    bus.loses = first(NodeStarted | NodeSucceeded, times=2)
    async with cluster_of(bus, work) as cluster:
        view = await cluster.run(chain("work"), timeout=20)
    assert (view.status, view.nodes["n0"].attempt, work.runs) == ("finished", 1, {"n0": 1})
    # The copy of the command reached the worker, which reported the end again.
    assert (bus.count(RunNode), bus.count(NodeSucceeded), bus.count(AskRun)) == (2, 2, 0)


async def test_an_attempt_that_its_restarted_worker_does_not_know_counts_as_lost() -> None:
    """The worker has its old name, so its session is never silent."""
    bus, work = Recording(), Work(seconds=100)
    named = WorkerConfig(worker_id="w")
    async with cluster_of(bus, work, worker_config=named) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(1)
        bus.loses = first(NodeReleased)
        await cluster.stop_worker(cluster.workers[0], 0)
        await cluster.add_worker(work.handlers, named)
        view = await cluster.client.wait(task_id, 300)
    assert (view.status, view.nodes["n0"].attempt, work.runs) == ("finished", 2, {"n0": 2})
    assert bus.count(AskRun, worker_id="w") >= 1
    assert (bus.count(NodeReleased), bus.count(NodeFailed, reason_code="worker_lost")) == (1, 1)


async def test_a_worker_that_is_declared_lost_and_restarted_runs_its_nodes_again_at_once() -> None:
    bus, work = Recording(), Work(seconds=1000)
    named = WorkerConfig(worker_id="w")
    async with cluster_of(bus, work, worker_config=named) as cluster:
        await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(900)
        bus.loses = first(NodeReleased)
        await cluster.stop_worker(cluster.workers[0], 0)
        (coordinator,) = cluster.coordinators
        await coordinator.declare_lost("w")
        await cluster.add_worker(work.handlers, named)
        await cluster.clock.sleep(5)
        assert work.runs == {"n0": 2}


async def test_a_worker_that_is_declared_lost_and_killed_loses_one_attempt_at_its_restart() -> None:
    bus, work = Recording(), Work(seconds=1000)
    named = WorkerConfig(worker_id="w")
    # The coordinator reads the sessions so rarely that the new one is not seen by chance.
    rarely = CoordinatorConfig(heartbeat_soft_sec=600, heartbeat_hard_sec=1200)
    async with cluster_of(bus, work, worker_config=named, coordinator_config=rarely) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(900)
        bus.loses = first(NodeReleased)
        await cluster.stop_worker(cluster.workers[0], 0)
        (coordinator,) = cluster.coordinators
        await coordinator.declare_lost("w")
        await cluster.add_worker(work.handlers, named)
        view = await cluster.client.wait(task_id, 2000)
    assert (view.status, view.nodes["n0"].attempt, work.runs) == ("finished", 2, {"n0": 2})


async def test_a_long_run_is_asked_for_now_and_then_and_nothing_is_written() -> None:
    bus, work = Recording(), Work(seconds=3600)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(3500)
        (record,) = (await cluster.store.load([task_id])).values()
        view = await cluster.client.wait(task_id, 600)
    assert (view.status, work.runs, bus.count(RunNode)) == ("finished", {"n0": 1}, 1)
    assert bus.count(AskRun) == bus.count(NodeStarted) - 1
    assert 10 < bus.count(AskRun) < 20
    assert record.version <= 3 + bus.count(AskRun)


async def test_a_group_that_is_set_back_runs_nothing_again() -> None:
    bus, work = Recording(), Work()
    async with cluster_of(bus, work) as cluster:
        assert (await cluster.run(wide(50))).status == "finished"
        again = sum(
            bus.broker.rewind("flowkit.workers", COMMANDS, partition, 100)
            for partition in PARTITIONS
        )
        again += sum(
            bus.broker.rewind("flowkit.coordinators", EVENTS, partition, 100)
            for partition in PARTITIONS
        )
        assert again > 100
        assert (await cluster.run(chain(*["work"] * 3), timeout=60)).status == "finished"
    assert work.runs == {f"n{i}": 2 if i < 3 else 1 for i in range(50)}


async def test_commands_that_wait_in_the_queue_are_not_sent_again() -> None:
    bus, work = Recording(), Work(seconds=60)
    async with cluster_of(
        bus, work, workers=2, worker_config=WorkerConfig(max_concurrency=10)
    ) as cluster:
        began = cluster.clock.monotonic()
        view = await cluster.run(wide(1000))
        took = cluster.clock.monotonic() - began
    assert view.status == "finished"
    assert bus.count(RunNode) == 1000
    assert max(work.runs.values()) == 1
    assert took >= 3000
    assert bus.count(AskRun) < 3000


@pytest.mark.parametrize("seed", range(3))
async def test_however_many_change_tasks_that_wait_each_command_is_sent_once(seed: int) -> None:
    """Coordinators send their own decisions, and clients send hints.

    Other coordinators that read the task meanwhile send nothing. Without segments: a pause
    withdraws commands that carry other nodes.
    """
    chance = random.Random(seed)
    bus, work = Recording(), Work(seconds=3)
    async with cluster_of(
        bus, work, coordinators=3, worker_config=WorkerConfig(max_concurrency=4)
    ) as cluster:
        everybody = [cluster.client, *cluster.coordinators]

        async def change(task_id: str) -> None:
            for _ in range(3):
                await cluster.clock.sleep(chance.random() * 15)
                await chance.choice(everybody).pause(task_id)
                await cluster.clock.sleep(chance.random() * 15)
                await chance.choice(everybody).resume(task_id)

        async with anyio.create_task_group() as group:
            task_ids = [
                await chance.choice(everybody).create_task(graph=graph)
                for graph in [wide(5), chain(*["work"] * 4) | {"segments": "off"}] * 10
            ]
            for task_id in task_ids:
                group.start_soon(change, task_id)
        views = [await cluster.client.wait(task_id, 10_000) for task_id in task_ids]
    assert {str(view.status) for view in views} == {"finished"}
    assert bus.count(RunNode) == work.runs.total() == 90


async def test_a_coordinator_that_is_behind_with_the_reports_sends_nothing_again() -> None:
    bus, work = Recording(), Work(seconds=200)
    async with cluster_of(bus, work) as cluster:
        processor = cluster.coordinators[0]._scheduler.processor
        apply = processor.apply

        async def apply_slowly(events: Any, **fields: Any) -> Any:
            if any(isinstance(event, NodeStarted) for some in events.values() for event in some):
                await cluster.clock.sleep(45)
            return await apply(events, **fields)

        processor.apply = apply_slowly
        task_ids = [await cluster.client.create_task(graph=chain("work")) for _ in range(100)]
        views = [await cluster.client.wait(task_id, 10_000) for task_id in task_ids]
    assert {view.status for view in views} == {"finished"}
    assert (bus.count(RunNode), set(work.runs.values())) == (100, {100})


class Secretive(InMemoryBus):
    """A bus that does not report outstanding messages, like a broker without the needed rights."""

    silent = False

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        if self.silent:
            raise BusUnavailable("not allowed")
        return await super().outstanding(topic, group)


async def test_where_the_bus_does_not_say_what_waits_what_was_begun_does_not_gather() -> None:
    bus, work = Secretive(), Work()
    async with Cluster(bus=bus, handlers=work.handlers, coordinator_config=COORDINATOR) as cluster:
        work.cluster = cluster
        await cluster.client.create_task(graph={"nodes": [{"node_id": "a", "type": "missing"}]})
        await cluster.clock.sleep(10)
        bus.silent = True
        for _ in range(50):
            await cluster.run({"nodes": [{"node_id": "a", "type": "work"}]})
        await cluster.clock.sleep(60)
        assert len(cluster.coordinators[0]._scheduler.commands._new) < 5
        bus.silent = False
        assert (
            await cluster.run({"nodes": [{"node_id": "a", "type": "work"}]})
        ).status == "finished"
