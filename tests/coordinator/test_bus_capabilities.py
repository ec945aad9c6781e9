"""Buses with fewer capabilities: lost commands are resent later, and copies change nothing."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flowkit.coordinator._command_watch import LONGEST_PAUSE_WITHOUT_REPLAY_SEC, UNKNOWN_SEC
from flowkit.coordinator._stalled_partitions import SILENT_STANDSTILL_SEC, STANDSTILL_SEC
from flowkit.messages import NodeStarted, NodeSucceeded, RunNode, decode
from flowkit.protocols import Message, Place
from flowkit_testing import Broker, InMemoryBus
from flowkit_testing.simulation import SimCluster, simulate
from tests.builders import chain
from tests.coordinator.lost_messages import Work, cluster_of, first, wide

NOTHING: Mapping[str, bool] = {
    "places": False,
    "key_affinity": False,
    "replay_for_new_groups": False,
}


class Losing(InMemoryBus):
    """A bus that confirms the messages that ``loses`` selects and never delivers them."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(**capabilities)
        self.published: list[Any] = []
        self.loses = lambda message: False

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        kept = []
        for message in messages:
            decoded = decode(message.value)
            self.published.append(decoded)
            if not self.loses(decoded):
                kept.append(message)
        return [None] * len(messages) if await super().publish(kept) is not None else ()

    def count(self, kind: type) -> int:
        return sum(isinstance(message, kind) for message in self.published)


async def test_a_lost_command_is_sent_again_where_the_bus_does_not_know_where_it_is() -> None:
    bus, work = Losing(places=False), Work()
    bus.loses = first(RunNode)
    async with cluster_of(bus, work) as cluster:
        began = cluster.clock.monotonic()
        view = await cluster.run(chain("work", "work"), timeout=600)
        took = cluster.clock.monotonic() - began
    assert (view.status, view.nodes["n0"].attempt, work.runs) == ("finished", 1, {"n0": 1, "n1": 1})
    assert UNKNOWN_SEC <= took < 2 * UNKNOWN_SEC


async def test_the_pauses_between_the_copies_of_a_command_grow() -> None:
    bus, work = Losing(places=False), Work()
    bus.loses = lambda message: isinstance(message, RunNode)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(3600)
        assert 6 <= bus.count(RunNode) <= 10
        bus.loses = lambda message: False
        assert (await cluster.client.wait(task_id, 7200)).status == "finished"
    assert work.runs == {"n0": 1}


async def test_a_coordinator_that_takes_over_sends_a_lost_command_again_without_places() -> None:
    bus, work = Losing(places=False), Work()
    bus.loses = first(RunNode)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(6)
        await cluster.coordinators.pop().stop()
        await cluster.add_coordinator()
        assert (await cluster.client.wait(task_id, 600)).status == "finished"
    assert work.runs == {"n0": 1}


async def test_a_worker_that_comes_late_gets_its_commands_from_a_bus_without_replay() -> None:
    bus, work = InMemoryBus(replay_for_new_groups=False), Work()
    async with cluster_of(bus, work, workers=0) as cluster:
        task_id = await cluster.client.create_task(graph=wide(3))
        await cluster.clock.sleep(3 * 3600)
        await cluster.add_worker(work.handlers)
        began = cluster.clock.monotonic()
        assert (await cluster.client.wait(task_id, 600)).status == "finished"
        took = cluster.clock.monotonic() - began
    assert took <= 1.5 * LONGEST_PAUSE_WITHOUT_REPLAY_SEC
    assert work.runs == {"n0": 1, "n1": 1, "n2": 1}


@pytest.mark.parametrize(
    "capabilities",
    [NOTHING, *({name: False} for name in NOTHING)],
    ids=lambda fields: "+".join(fields),
)
@pytest.mark.parametrize("seed", range(3))
async def test_flows_finish_on_a_bus_that_knows_less_and_loses_messages(
    seed: int, capabilities: Mapping[str, bool]
) -> None:
    chance = random.Random(seed)
    bus, work = Losing(**capabilities), Work(seconds=0.5)
    left = [20]

    def loses(message: Any) -> bool:
        unlucky = (
            left[0] > 0
            and isinstance(message, RunNode | NodeStarted | NodeSucceeded)
            and chance.random() < 0.2
        )
        left[0] -= unlucky
        return unlucky

    bus.loses = loses
    async with cluster_of(bus, work, coordinators=2, workers=2) as cluster:
        task_ids = [
            await cluster.client.create_task(graph=graph)
            for graph in [chain(*["work"] * 5), wide(10)] * 3
        ]
        views = [await cluster.client.wait(task_id, 24 * 3600) for task_id in task_ids]
    assert {view.status for view in views} == {"finished"}
    assert {node.attempt for view in views for node in view.nodes.values()} == {1}
    assert left == [0]


@pytest.mark.parametrize(
    "capabilities", [NOTHING, {"key_affinity": False}], ids=["nothing", "no-affinity"]
)
def test_the_simulation_finds_nothing_on_a_bus_that_knows_less(
    capabilities: Mapping[str, bool],
) -> None:
    async def scenario(cluster: SimCluster) -> None:
        work = Work(seconds=1.0)
        work.cluster = cluster  # type: ignore[assignment]
        view = await cluster.run(chain(*["work"] * 4), handlers=work.handlers)
        assert view.status == "finished"

    simulate(
        scenario,
        seeds=15,
        broker=lambda: Broker(partitions=4, **capabilities),
        converge_sec=4 * 3600.0,
    )


# ------------------------------------------------ behind an unacknowledged message


class Blocked(InMemoryBus):
    """A partition blocked by an unacknowledged message of another sender.

    ``hide`` loses a message behind it.
    """

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.hidden: set[int] = set()
        self.published: list[Any] = []
        self.loses = lambda message: False

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        places = await super().publish(messages)
        for message, place in zip(messages, places, strict=True):
            decoded = decode(message.value)
            self.published.append(decoded)
            if place is not None and self.loses(decoded):
                self.lose(message.topic, place[1])
        return places

    def lose(self, topic: str, position: int) -> None:
        """Count a message as delivered and acknowledged that no worker has received."""
        (cursor,) = self.broker.groups["flowkit.workers"].cursors[topic]
        assert cursor.next == position
        cursor.next += 1
        cursor.acked.add(position)

    async def block(self, topic: str) -> None:
        await super().publish([Message(topic, b"")])
        (cursor,) = self.broker.groups["flowkit.workers"].cursors[topic]
        cursor.next += 1
        cursor.out.add(cursor.next - 1)


@pytest.mark.parametrize(
    "others", [True, False], ids=["later ones are started", "nothing else is sent"]
)
async def test_a_message_that_is_never_acknowledged_does_not_hide_a_loss_for_ever(
    others: bool,
) -> None:
    bus, work = Blocked(), Work()
    bus.loses = first(RunNode)
    async with cluster_of(bus, work) as cluster:
        await bus.block("flowkit.cmd.work")
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(1)
        if others:
            assert (await cluster.run(chain("work"), timeout=60)).status == "finished"
        limit = 2 * (STANDSTILL_SEC if others else SILENT_STANDSTILL_SEC)
        assert (await cluster.client.wait(task_id, limit)).status == "finished"
        await cluster.clock.sleep(3600)
    copies = [
        message
        for message in bus.published
        if isinstance(message, RunNode) and message.task_id == task_id
    ]
    assert len(copies) == 2
    assert work.runs["n0"] == (2 if others else 1)
