"""The topic of changes: every change of a task, in order, over crashes and outages."""

from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest
from pydantic import SecretStr
from pydantic_core import from_json

from flowkit import CoordinatorConfig, hookimpl
from flowkit._backends import coordinator_topics
from flowkit.changes import TaskChange, json_schema
from flowkit.config import CommonConfig
from flowkit.errors import BusUnavailable, NodeFailure
from flowkit.protocols import Message, Place, TopicSpec
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.builders import DAY, ONE, TWO, chain, graph, node, pages, plugin, pull, work

PUBLISHING = UNHURRIED_COORDINATOR.model_copy(
    update={"publish_changes": True, "scheduler_tick_sec": 60.0}
)
TOPIC = "flowkit.changes"
NEVER = {"max": 0}
HOUR = 3600.0
QUIET = PUBLISHING.model_copy(update={"publish_changes": False})


class Topic(InMemoryBus):
    """A bus that records what it has taken for the topic of changes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[list[Message]] = []
        self.is_away = False
        self.losing: set[int] = set()
        """Numbers of the changes whose first copy is lost without a confirmation."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if messages and messages[0].topic == TOPIC:
            if self.is_away:
                raise BusUnavailable("the topic is away")
            lost = [one for one in messages if from_json(one.value)["seq"] in self.losing]
            self.calls.append([one for one in messages if one not in lost])
            if lost:
                self.losing.clear()
                raise BusUnavailable("not all were confirmed")
        return await super().publish(messages)

    def changes(self, task_id: str) -> list[TaskChange]:
        """Return the changes of a task that were published, with their copies."""
        return [
            TaskChange.model_validate_json(message.value)
            for call in self.calls
            for message in call
            if message.key == task_id
        ]

    def first_copies(self, task_id: str) -> list[int]:
        """Return the numbers of the changes of a task without copies of earlier ones."""
        return list(dict.fromkeys(one.seq for one in self.changes(task_id)))


async def all_published(cluster: Cluster, *task_ids: str) -> None:
    """Wait until these tasks have ended and nothing of them is to be published."""
    for task_id in task_ids:
        await cluster.client.wait(task_id, timeout=DAY)
        while (await cluster.store.load([task_id]))[task_id].header.wake_at is not None:
            await cluster.clock.sleep(1.0)


@handler("wrong")
async def wrong(item: Any) -> None:
    raise NodeFailure("it is wrong", reason_code="wrong", permanent=True)


@handler("progressing")
async def progressing(item: Any, ctx: RunContext) -> None:
    ctx.heartbeat({"done": 0.5})
    await ctx.clock.sleep(5)


GRAPHS: dict[str, Any] = {
    "chain": TWO,
    "failure": graph(node("a", "wrong", retry_policy=NEVER)),
    "progress": graph(node("a", "progressing")),
    "stream": graph(node("a", "pages", io={"input_inline": 3}), pull("b", "work", "a")),
    "map": graph(node("a", map={"over": [1, 2]})),
    "subflow": graph(node("a", "subflow", io={"graph": ONE})),
    "sleep": graph(node("a", "sleep", io={"for_sec": 3600})),
}


@pytest.mark.parametrize("name", GRAPHS)
async def test_the_topic_has_the_events_that_watch_shows_and_they_fit_the_schema(name: str) -> None:
    bus, validator = Topic(), jsonschema_rs.validator_for(json_schema())
    handlers = [work, wrong, progressing, pages]
    async with Cluster(bus=bus, handlers=handlers, coordinator_config=PUBLISHING) as cluster:
        task_id = await cluster.client.create_task(graph=GRAPHS[name], labels={"team": "a"})
        await all_published(cluster, task_id)
        events = [event async for event in cluster.client.watch(task_id)]
    published = bus.changes(task_id)
    assert [
        (one.seq, one.at, one.task_id, one.node_id, one.kind, one.status, one.data)
        for one in published
    ] == [
        (one.seq, one.at, one.task_id, one.node_id, one.kind, one.status, one.data)
        for one in events
    ]
    assert {one.labels["team"] for one in published} == {"a"}
    for message in (one for call in bus.calls for one in call):
        validator.validate(from_json(message.value))
        assert message.headers == {"flowkit-version": b"1"}


async def test_changes_name_the_flow_the_version_and_the_parent_of_their_task() -> None:
    bus = Topic()
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        await cluster.client.put_flow("inner", ONE)
        outer = graph(node("a", "subflow", io={"flow": "inner"}))
        task_id = await cluster.client.create_task(graph=outer, pipeline="outer")
        await all_published(cluster, task_id)
        view = await cluster.client.get_task(task_id)
        child = view.nodes["a"].child_task_id
        assert child is not None
        await all_published(cluster, child)
    first = bus.changes(child)[0]
    assert (first.flow, first.flow_version, first.parent) == ("inner", 1, task_id)
    assert bus.changes(task_id)[0].pipeline == "outer"


async def test_without_the_option_nothing_is_published_and_no_ended_task_stays_due() -> None:
    bus = Topic()
    async with Cluster(bus=bus, handlers=[work], coordinator_config=QUIET) as cluster:
        for document in (ONE, graph(node("a", "wait_signal", io={"signal": "go"}))):
            task_id = await cluster.client.create_task(graph=document)
            await cluster.clock.sleep(1)
            await cluster.client.cancel(task_id)
            await cluster.clock.sleep(2 * HOUR)
            assert (await cluster.store.load([task_id]))[task_id].header.wake_at is None
    assert bus.calls == []
    assert TOPIC not in bus.broker.topics


# ---------------------------------------------------------------- order


async def test_a_change_is_published_only_after_the_one_before_is_confirmed() -> None:
    bus = Topic()
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        ids = [await cluster.client.create_task(graph=chain(*3 * ["work"])) for _ in range(5)]
        await all_published(cluster, *ids)
    for call in bus.calls:
        keys = [message.key for message in call]
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("lost", [1, 2, 5, 9])
async def test_a_change_that_is_lost_on_its_way_holds_back_the_next_ones(lost: int) -> None:
    bus = Topic()
    bus.losing = {lost}
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        task_id = await cluster.client.create_task(graph=TWO)
        await all_published(cluster, task_id)
    assert bus.first_copies(task_id) == list(range(1, 10))


# ---------------------------------------------------------------- crashes and outages


async def test_the_end_of_a_task_is_published_by_the_next_coordinator() -> None:
    bus, store = Topic(), InMemoryStore()
    bus.is_away = True
    async with Cluster(
        bus=bus, store=store, handlers=[work], coordinator_config=PUBLISHING
    ) as cluster:
        task_id = await cluster.client.create_task(graph=TWO)
        await cluster.client.wait(task_id, timeout=DAY)
        await cluster.coordinators.pop().stop()
        assert bus.changes(task_id) == []
        bus.is_away = False
        await cluster.add_coordinator()
        await all_published(cluster, task_id)
    assert [one.seq for one in bus.changes(task_id)] == list(range(1, 10))
    assert bus.changes(task_id)[-1].status == "finished"


async def test_an_outage_of_the_topic_holds_up_no_task_and_loses_no_change() -> None:
    bus = Topic()
    bus.is_away = True
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        ids = [(await cluster.run(TWO, timeout=60)).id for _ in range(3)]
        await cluster.clock.sleep(HOUR)
        bus.is_away = False
        await all_published(cluster, *ids)
    for task_id in ids:
        assert [one.seq for one in bus.changes(task_id)] == list(range(1, 10))


async def test_an_ended_task_is_checked_ever_less_often_while_its_topic_is_away() -> None:
    bus = Topic()
    bus.is_away = True
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        view = await cluster.run(ONE, timeout=60)
        before = (await cluster.store.load([view.id]))[view.id].version
        await cluster.clock.sleep(2 * HOUR)
        assert (await cluster.store.load([view.id]))[view.id].version - before < 10


async def test_what_is_recorded_as_published_is_not_published_again() -> None:
    bus = Topic()
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        await all_published(cluster, task_id)
        count = len(bus.changes(task_id))
        await cluster.coordinators.pop().stop()
        await cluster.add_coordinator()
        await cluster.clock.sleep(2 * HOUR)
    assert len(bus.changes(task_id)) == count


@pytest.mark.parametrize("waits_sec", [0, 600])
async def test_a_task_that_a_client_has_made_and_ended_is_published(waits_sec: float) -> None:
    """No coordinator has changed it before its end."""
    bus, store = Topic(), InMemoryStore()
    document = graph(node("a", "wait_signal", io={"signal": "go"}))
    async with Cluster(
        bus=bus, store=store, coordinators=0, coordinator_config=PUBLISHING
    ) as cluster:
        task_id = await cluster.client.create_task(graph=document)
        await cluster.clock.sleep(waits_sec)
        await cluster.client.cancel(task_id)
        await cluster.add_coordinator()
        await all_published(cluster, task_id)
        events = [event.seq async for event in cluster.client.watch(task_id)]
    assert bus.first_copies(task_id) == events


async def test_the_first_changes_of_a_task_that_waits_at_once_are_published_at_once() -> None:
    bus = Topic()
    async with Cluster(bus=bus, coordinator_config=PUBLISHING) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "wait_signal", io={"signal": "go"}))
        )
        await cluster.clock.sleep(1)
        assert bus.first_copies(task_id)[:1] == [1]
        # The signal ends the task in the client.
        await cluster.client.signal(task_id, "go")
        await all_published(cluster, task_id)
    assert bus.changes(task_id)[-1].status == "finished"


async def test_a_task_is_kept_until_its_changes_are_published() -> None:
    bus = Topic()
    bus.is_away = True
    config = PUBLISHING.model_copy(update={"finished_retention_sec": 60.0})
    async with Cluster(bus=bus, handlers=[work], coordinator_config=config) as cluster:
        view = await cluster.run(ONE, timeout=60)
        await cluster.clock.sleep(2 * HOUR)
        assert await cluster.store.load([view.id])
        bus.is_away = False
        await cluster.clock.sleep(2 * HOUR)
        assert not await cluster.store.load([view.id])
    assert bus.changes(view.id)[-1].status == "finished"


async def test_a_coordinator_that_does_not_publish_ends_what_another_one_began() -> None:
    bus = Topic()
    bus.is_away = True
    async with Cluster(bus=bus, handlers=[work], coordinator_config=PUBLISHING) as cluster:
        view = await cluster.run(ONE, timeout=60)
        await cluster.coordinators.pop().stop()
        await cluster.add_coordinator(QUIET)
        await all_published(cluster, view.id)
    assert bus.changes(view.id) == []


async def test_several_coordinators_publish_each_change_in_order() -> None:
    bus = Topic()
    async with Cluster(
        bus=bus, coordinators=3, workers=2, handlers=[work], coordinator_config=PUBLISHING
    ) as cluster:
        ids = [await cluster.client.create_task(graph=chain(*4 * ["work"])) for _ in range(10)]
        await all_published(cluster, *ids)
    for task_id in ids:
        assert bus.first_copies(task_id) == list(range(1, 16))


# ---------------------------------------------------------------- messages


async def test_messages_are_plain_json_also_if_others_are_signed() -> None:
    bus = Topic()
    config = PUBLISHING.model_copy(update={"signing_keys": (SecretStr("k" * 16),)})
    async with Cluster(bus=bus, coordinator_config=config) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "sleep", io={"for_sec": 1}))
        )
        await all_published(cluster, task_id)
    assert bus.changes(task_id)
    assert all(dict(one.headers) == {"flowkit-version": b"1"} for call in bus.calls for one in call)


async def test_data_is_left_out_if_a_plugin_encodes_payloads() -> None:
    def turned(data: bytes) -> bytes:
        return data[::-1]

    codec = plugin("codec", flowkit_encode_payload=hookimpl(turned))
    codec.flowkit_decode_payload = hookimpl(turned)
    bus = Topic()
    async with Cluster(
        bus=bus, handlers=[wrong], coordinator_config=PUBLISHING, plugins=[codec]
    ) as cluster:
        task_id = await cluster.client.create_task(graph=GRAPHS["failure"])
        await all_published(cluster, task_id)
    assert bus.changes(task_id)[-1].status == "failed"
    assert {one.data for one in bus.changes(task_id)} == {None}
    assert b"it is wrong" not in b"".join(one.value for call in bus.calls for one in call)


async def test_data_that_makes_a_message_too_large_is_left_out() -> None:
    @handler("long")
    async def long(item: Any, ctx: RunContext) -> None:
        ctx.heartbeat({"text": "x" * 3_000})
        await ctx.clock.sleep(5)

    bus = Topic(max_message_bytes=4_096)
    async with Cluster(bus=bus, handlers=[long], coordinator_config=PUBLISHING) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "long")), labels=dict.fromkeys("abcdef", "y" * 200)
        )
        await all_published(cluster, task_id)
        events = [event async for event in cluster.client.watch(task_id)]
    sizes = [len(one.value) for call in bus.calls for one in call]
    assert max(sizes) <= 4_096
    assert [one.seq for one in bus.changes(task_id)] == [event.seq for event in events]
    assert [one.kind for one in bus.changes(task_id) if one.data_omitted] == ["progress"]


def test_the_topic_is_checked_if_changes_are_published() -> None:
    assert TopicSpec(TOPIC) in coordinator_topics(CoordinatorConfig(publish_changes=True))
    assert TopicSpec(TOPIC) not in coordinator_topics(CoordinatorConfig())


def test_the_topic_is_one_of_the_installation_s_own() -> None:
    config = CommonConfig(namespace="shop")
    assert config.changes_topic == "shop.changes"
    assert config.owns_topic("shop.changes")
