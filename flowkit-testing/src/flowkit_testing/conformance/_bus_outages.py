"""The bus suite: unreachable servers and broken connections."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import pytest

from flowkit.errors import BusError, BusUnavailable
from flowkit.protocols import Bus, Subscription, TopicSpec
from flowkit_testing.conformance._bus_base import (
    BusSuite,
    CutConnection,
    OpenBus,
    StopServer,
    contents,
    message,
    messages,
    needed,
    until_available,
    values,
)
from flowkit_testing.conformance._common import assert_well_formed

CUTS = 4


class MissingTopics(BusSuite):
    """Topics that do not exist, or do not exist yet."""

    async def test_publishing_to_a_topic_that_does_not_exist_creates_it_or_raises(
        self, bus: Bus, unique: str, group: str
    ) -> None:
        missing = f"conformance.{unique}.missing"
        try:
            await bus.publish([message(missing, "one")])
        except BusError:
            return
        if bus.replay_for_new_groups:
            async with bus.subscribe([missing], group=group) as subscription:
                await self.take(subscription, [b"one"])

    @pytest.mark.parametrize("grouped", [True, False], ids=["member", "listener"])
    async def test_a_subscription_to_a_topic_that_does_not_exist_gets_its_messages_later_or_raises(
        self, bus: Bus, unique: str, group: str, grouped: bool
    ) -> None:
        missing = f"conformance.{unique}.missing"
        try:
            async with bus.subscribe([missing], group=group if grouped else None) as subscription:
                await bus.ensure_topics([TopicSpec(missing)])
                await until_available(lambda: bus.publish([message(missing, "one")]))
                await self.take(subscription, [b"one"])
        except BusError:
            return


class Outages(BusSuite):
    """Errors during an outage. No message is lost."""

    async def test_publishing_raises_while_the_server_is_stopped(
        self, bus: Bus, topic: str, group: str, stop_server: StopServer | None
    ) -> None:
        stop = needed(stop_server, "stop_server")
        async with stop():
            with anyio.fail_after(self.patience), pytest.raises(BusUnavailable):
                await bus.publish([message(topic, "unknown")])
        with anyio.fail_after(self.patience):
            await until_available(lambda: bus.publish([message(topic, "after")]))
            async with bus.subscribe([topic], group=group) as subscription:
                await self.take_patiently(subscription, [b"after"])

    async def test_receiving_raises_while_the_server_is_stopped_and_continues_afterwards(
        self, bus: Bus, topic: str, group: str, stop_server: StopServer | None
    ) -> None:
        stop = needed(stop_server, "stop_server")
        async with bus.subscribe([topic], group=group) as subscription:
            await bus.publish([message(topic, "before")])
            await subscription.ack(await self.take(subscription, [b"before"]))
            async with stop():
                with anyio.fail_after(self.patience), pytest.raises(BusUnavailable):
                    await subscription.receive(max_messages=1)
            with anyio.fail_after(self.patience):
                await until_available(lambda: bus.publish([message(topic, "after")]))
                await self.take_patiently(subscription, [b"after"])

    async def test_a_reject_that_is_not_confirmed_acknowledges_nothing(
        self, bus: Bus, topic: str, group: str, stop_server: StopServer | None
    ) -> None:
        stop = needed(stop_server, "stop_server")
        await bus.publish([message(topic, "poison")])
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, [b"poison"])
            async with stop():
                with anyio.fail_after(self.patience), pytest.raises(BusError):
                    await first.reject(got, "bad")
        async with bus.subscribe([topic], group=group) as second:
            await self.take_patiently(second, [b"poison"])

    async def test_a_release_while_the_server_is_stopped_raises_or_gives_back(
        self, bus: Bus, topic: str, group: str, stop_server: StopServer | None
    ) -> None:
        stop = needed(stop_server, "stop_server")
        await bus.publish([message(topic, "given back")])
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, [b"given back"])
            released = False
            async with stop():
                with anyio.fail_after(self.patience), suppress(BusUnavailable):
                    await subscription.release(got)
                    released = True
            if not released:
                with anyio.fail_after(self.patience):
                    await until_available(lambda: subscription.release(got))
            await self.take_patiently(subscription, [b"given back"])

    async def test_every_call_ends_while_the_server_is_stopped(
        self, bus: Bus, topic: str, group: str, unique: str, stop_server: StopServer | None
    ) -> None:
        stop = needed(stop_server, "stop_server")
        sent = messages(topic, 2)
        await bus.publish(sent)

        async def subscribe() -> None:
            async with bus.subscribe([topic], group=f"{group}-a"):
                pass

        async def check() -> None:
            assert_well_formed(await bus.check([TopicSpec(topic)]))

        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
            calls: list[Callable[[], Awaitable[object]]] = [
                check,
                subscribe,
                lambda: bus.ensure_topics([TopicSpec(f"conformance.{unique}.new")]),
                lambda: bus.outstanding(topic, group),
                lambda: subscription.ack(got[:1]),
                lambda: subscription.release(got[1:]),
            ]
            async with stop():
                with anyio.fail_after(self.patience):
                    async with anyio.create_task_group() as tasks:
                        for call in calls:
                            tasks.start_soon(_succeeds_or_is_unavailable, call)

    async def test_messages_on_their_way_when_a_connection_breaks_are_delivered(
        self, bus: Bus, topic: str, group: str, cut_connection: CutConnection | None
    ) -> None:
        cut = needed(cut_connection, "cut_connection")
        async with bus.subscribe([topic], group=group) as subscription:
            await self.survives_cuts(bus, subscription, topic, cut)

    async def test_a_listener_misses_nothing_when_its_connection_breaks(
        self,
        bus: Bus,
        open_bus: OpenBus | None,
        broadcast: str,
        cut_connection: CutConnection | None,
    ) -> None:
        cut = needed(cut_connection, "cut_connection")
        async with (
            needed(open_bus, "open_bus")() as publisher,
            bus.subscribe([broadcast], group=None) as subscription,
        ):
            await self.survives_cuts(publisher, subscription, broadcast, cut)

    async def survives_cuts(
        self, publisher: Bus, subscription: Subscription, topic: str, cut: CutConnection
    ) -> None:
        """Break connections while messages are published one by one.

        Check that the subscriber receives all of them.
        """
        sent = messages(topic, 10 * CUTS)
        got: list[bytes] = []

        async def receive() -> None:
            while not set(values(sent)).issubset(got):
                batch = await until_available(partial(subscription.receive, max_messages=3))
                got.extend(contents(batch))
                await until_available(partial(subscription.ack, batch))

        with anyio.move_on_after(self.patience):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                for number, item in enumerate(sent):
                    if number % (len(sent) // CUTS) == 5:
                        await cut()
                    await until_available(partial(publisher.publish, [item]))
        assert set(values(sent)).issubset(got), (
            f"not delivered within {self.patience} s: {sorted(set(values(sent)).difference(got))}"
        )

    async def take_patiently(self, subscription: Subscription, wanted: list[bytes]) -> None:
        """Receive until each of these values has arrived. Continue after an outage."""
        missing = set(wanted)
        with anyio.fail_after(self.patience):
            while missing:
                missing.difference_update(
                    contents(await until_available(lambda: subscription.receive(max_messages=100)))
                )


async def _succeeds_or_is_unavailable(call: Callable[[], Awaitable[object]]) -> None:
    with suppress(BusUnavailable):
        await call()
