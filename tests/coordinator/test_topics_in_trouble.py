"""A failing topic delays its own messages only."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import BusError, BusUnavailable, TopicUnavailable
from flowkit.protocols import Delivery, Message, Place, TopicSpec
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import work

BROKEN = "flowkit.cmd.broken"
FAN = {
    "nodes": [
        {"node_id": "a", "type": "work"},
        *({"node_id": role, "type": role, "depends_on": ["a"]} for role in ("work", "broken")),
    ]
}


class Troubled(InMemoryBus):
    """A bus whose topics can fail."""

    def __init__(self, error: BusError, topics: Collection[str]) -> None:
        super().__init__()
        self.error = error
        self.topics = set(topics)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if self.topics & {message.topic for message in messages}:
            raise self.error
        return await super().publish(messages)

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        if topic in self.topics:
            raise self.error
        return await super().outstanding(topic, group)


@handler("broken")
async def broken(item: Any) -> None: ...


@pytest.mark.parametrize(
    "error", [TopicUnavailable("it was deleted"), BusUnavailable("not confirmed")]
)
async def test_commands_of_other_roles_go_on_and_those_of_the_topic_go_when_it_is_back(
    error: BusError,
) -> None:
    bus = Troubled(error, [BROKEN])
    config = CoordinatorConfig(outbox_max_retry=1000)
    async with Cluster(
        bus=bus, handlers=[work, broken], coordinator_config=config, worker_config=WorkerConfig()
    ) as cluster:
        task_id = await cluster.client.create_task(graph=FAN)
        for _ in range(3):
            assert (
                await cluster.run({"nodes": [{"node_id": "n", "type": "work"}]}, timeout=30)
            ).status == "finished"
        view = await cluster.client.get_task(task_id)
        assert {name: str(node.status) for name, node in view.nodes.items()} == {
            "a": "finished",
            "work": "finished",
            "broken": "queued",
        }
        bus.topics.clear()
        assert (await cluster.client.wait(task_id, timeout=60)).status == "finished"


async def test_lost_commands_of_other_topics_are_found_while_one_cannot_be_asked() -> None:
    bus = Troubled(TopicUnavailable("it was deleted"), [])
    async with Cluster(
        bus=bus,
        handlers=[work],
        coordinator_config=CoordinatorConfig(),
        worker_config=WorkerConfig(),
    ) as cluster:
        await bus.ensure_topics([TopicSpec(BROKEN), TopicSpec("flowkit.cmd.idle")])
        stuck = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "n", "type": "broken"}]}
        )
        lost = await cluster.client.create_task(graph={"nodes": [{"node_id": "n", "type": "idle"}]})
        await cluster.clock.sleep(5)
        bus.topics.add(BROKEN)
        for partition in range(bus.broker.partitions):
            bus.broker.lose_tail("flowkit.cmd.idle", partition, 1)

        @handler("idle")
        async def idle(item: Any) -> None: ...

        await cluster.add_worker([idle])
        assert (await cluster.client.wait(lost, timeout=60)).status == "finished"
        assert (await cluster.client.get_task(stuck)).nodes["n"].status == "queued"


async def test_poison_that_the_store_keeps_does_not_wait_for_the_topic_of_dead_letters() -> None:
    class NoDeadLetters(InMemoryBus):
        def subscribe(self, *args: Any, **kwargs: Any) -> Any:
            return _Refusing(super().subscribe(*args, **kwargs))

    class _Refusing:
        """A subscription that cannot reject messages."""

        def __init__(self, opened: Any) -> None:
            self._opened = opened

        async def __aenter__(self) -> Any:
            self._subscription = await self._opened.__aenter__()
            return self

        async def __aexit__(self, *exc: object) -> None:
            await self._opened.__aexit__(*exc)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._subscription, name)

        async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
            raise TopicUnavailable("there are no dead letters")

    bus = NoDeadLetters()
    async with Cluster(
        bus=bus,
        handlers=[work],
        coordinator_config=CoordinatorConfig(),
        worker_config=WorkerConfig(),
    ) as cluster:
        for topic in ("flowkit.events", "flowkit.cmd.work"):
            await bus.publish([Message(topic, b"poison", key) for key in "abcdefgh"])
        assert (
            await cluster.run({"nodes": [{"node_id": "n", "type": "work"}]}, timeout=60)
        ).status == "finished"
        assert len((await cluster.client.dead_letters()).items) == 16
