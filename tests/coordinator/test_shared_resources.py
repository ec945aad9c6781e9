"""Resources that all coordinator functions of one coordinator share."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowkit import Coordinator
from flowkit.config import CommonConfig
from flowkit.coordinator._shared_resources import SharedResources
from flowkit_testing import Cluster
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.builders import graph, node


class Lamp:
    """A resource that records when it is entered and left."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.may_enter = anyio.Event()
        self.may_enter.set()

    @asynccontextmanager
    async def open(self, config: CommonConfig) -> AsyncIterator[str]:
        # A scope must be left by the task that entered it.
        async with anyio.create_task_group():
            await self.may_enter.wait()
            self.seen.append("entered")
            yield config.namespace
            self.seen.append("left")


def resources() -> SharedResources:
    return SharedResources(CommonConfig(namespace="shop"))


async def test_a_resource_is_entered_once_for_all_calls_and_left_at_the_end() -> None:
    lamp, shared, got = Lamp(), resources(), list[str]()

    async def use() -> None:
        got.append(await shared.get(opener))

    opener = lamp.open
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(use)
    assert (got, lamp.seen) == (["shop"] * 3, ["entered"])
    await shared.close()
    assert lamp.seen == ["entered", "left"]


async def test_a_call_that_is_cancelled_while_it_enters_leaves_the_resource_to_the_next() -> None:
    lamp, shared = Lamp(), resources()
    opener = lamp.open
    lamp.may_enter = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(shared.get, opener)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    lamp.may_enter.set()
    assert await shared.get(opener) == "shop"
    await shared.close()
    assert lamp.seen == ["entered", "left"]


async def test_entering_is_tried_again_after_an_error() -> None:
    tries: list[str] = []

    @asynccontextmanager
    async def open_line(config: CommonConfig) -> AsyncIterator[str]:
        tries.append(config.namespace)
        if len(tries) == 1:
            raise ConnectionError("the line is dead")
        yield "line"

    shared = resources()
    with pytest.raises(ConnectionError, match="the line is dead"):
        await shared.get(open_line)
    assert await shared.get(open_line) == "line"
    await shared.close()


async def test_all_resources_are_left_though_one_cannot_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @asynccontextmanager
    async def stuck_door(config: CommonConfig) -> AsyncIterator[None]:
        yield
        raise OSError("the door is stuck")

    lamp, shared = Lamp(), resources()
    await shared.get(lamp.open)
    await shared.get(stuck_door)
    with caplog.at_level(logging.ERROR):
        await shared.close()
    assert lamp.seen == ["entered", "left"]
    assert "stuck_door was not left: OSError: the door is stuck" in caplog.text


class Lamps:
    """A plugin whose function uses a resource."""

    def __init__(self) -> None:
        self.lamp = Lamp()
        self.configs: list[CommonConfig] = []

    @asynccontextmanager
    async def _open(self, config: CommonConfig) -> AsyncIterator[str]:
        self.configs.append(config)
        async with self.lamp.open(config) as name:
            yield name

    async def _light(self, ctx: Any) -> str:
        return str(await ctx.resource(self._open))

    def flowkit_register_functions(self, register: Any) -> None:
        register("light", self._light)


LIGHTS = graph(*(node(name, "coordinator_fn", io={"fn": "light"}) for name in "abc"))


async def test_the_functions_of_a_coordinator_share_a_resource_until_it_stops() -> None:
    lamps = Lamps()
    async with Cluster(plugins=[lamps]) as cluster:
        for _ in range(2):
            view = await cluster.run(LIGHTS)
            assert view.result == dict.fromkeys("abc", "flowkit")
        assert lamps.lamp.seen == ["entered"]
    assert lamps.lamp.seen == ["entered", "left"]


async def test_a_resource_is_given_the_address_of_the_bus_that_is_opened() -> None:
    lamps = Lamps()
    async with Coordinator(db="memory://lamps", plugins=[lamps]) as coordinator:
        await coordinator.wait(await coordinator.create_task(graph=LIGHTS), timeout=60)
    assert [config.bus for config in lamps.configs] == ["memory://lamps"]


async def test_a_resource_is_given_no_address_of_a_bus_that_is_an_object() -> None:
    lamps = Lamps()
    config = UNHURRIED_COORDINATOR.model_copy(update={"kafka_bootstrap": "unused:9092"})
    async with Cluster(plugins=[lamps], coordinator_config=config) as cluster:
        await cluster.run(LIGHTS)
    assert [config.bus for config in lamps.configs] == [None]


async def test_an_opener_that_ends_the_process_fails_the_node_alone() -> None:
    @asynccontextmanager
    async def open_exit(config: CommonConfig) -> AsyncIterator[None]:
        sys.exit(1)
        yield

    class Exits:
        def flowkit_register_functions(self, register: Any) -> None:
            register("light", self._light)

        async def _light(self, ctx: Any) -> None:
            await ctx.resource(open_exit)

    async with Cluster(plugins=[Exits()]) as cluster:
        view = await cluster.run(graph(node("a", "coordinator_fn", io={"fn": "light"})))
    assert view.status == "failed"
    assert "SystemExit" in (view.nodes["a"].error or "")
