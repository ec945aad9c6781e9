"""Fixtures and helpers of the bus suite."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Protocol, TypeVar

import anyio
import pytest

from flowkit.errors import BusUnavailable
from flowkit.protocols import Bus, Delivery, Message, Subscription, TopicSpec
from flowkit_testing.conformance._common import Conformance

T = TypeVar("T")

OpenBus = Callable[[], Bus]
WAVE = 40
"""Number of messages published to observe how a group shares them."""

MOST_BATCHES = 10_000
"""Maximum number of received batches, more than any test publishes messages.

A bus that exceeds it redelivers messages endlessly.
"""

KillMember = Callable[[str, str, int], Awaitable[Sequence[bytes]]]
"""Function of a topic, a group and a count.

A member in another process receives this many messages, acknowledges none and is killed.
"""


class PausedMember(Protocol):
    """Suspended member in another process with unacknowledged messages."""

    values: Sequence[bytes]
    """Values that it received."""

    async def acknowledge(self) -> None:
        """Resume the member, acknowledge the messages received before, and leave."""


PauseMember = Callable[[str, str, int], AbstractAsyncContextManager[PausedMember]]
"""Function of a topic, a group and a count.

A member in another process receives this many messages and is suspended. Leaving the context kills
it.
"""
StopServer = Callable[[], AbstractAsyncContextManager[object]]
"""The server is unreachable inside the context and has its data afterwards."""
CutConnection = Callable[[], Awaitable[None]]
"""Close the connections between the bus and its server once. New ones can be opened at once."""
CountKept = Callable[[str], Awaitable[int]]
"""Return the number of messages of a topic that the server keeps."""
CountTaken = Callable[[str, str], Awaitable[int]]
"""Return the number of messages that members of a group have fetched but not acknowledged."""


class BusSuite(Conformance):
    """Common base of the parts of the bus suite."""

    dead_letter_topic: ClassVar[str] = "flowkit.dlq"
    """Topic to which the bus rejects messages."""

    silence_sec: ClassVar[float | None] = None
    """Seconds without a heartbeat of a member after which the bus reassigns its messages.

    With None, the test that needs it is skipped.
    """

    many: ClassVar[int] = 1500
    """More messages than the bus keeps of a broadcast topic, or of a fully acknowledged topic."""

    prefetch: ClassVar[int] = 1000
    """Number of messages that a member may fetch beyond those that its caller has received."""

    @pytest.fixture
    def open_bus(self) -> OpenBus | None:
        """Return a function that creates another bus, not yet entered, for the same server.

        Tests that need it are skipped by default.
        """
        return None

    @pytest.fixture
    def closed_bus(self) -> Bus | None:
        """Return an entered bus that may not create topics. By default, its test is skipped."""
        return None

    @pytest.fixture
    def bus_without_dead_letters(self) -> Bus | None:
        """Return an entered bus for the same server that cannot store dead letters.

        By default, its test is skipped.
        """
        return None

    @pytest.fixture
    def kill_member(self) -> KillMember | None:
        """Return a :data:`KillMember`. By default, tests that need it are skipped."""
        return None

    @pytest.fixture
    def pause_member(self) -> PauseMember | None:
        """Return a :data:`PauseMember`. By default, tests that need it are skipped."""
        return None

    @pytest.fixture
    def stop_server(self) -> StopServer | None:
        """Return a :data:`StopServer`. By default, tests that need it are skipped."""
        return None

    @pytest.fixture
    def cut_connection(self) -> CutConnection | None:
        """Return a :data:`CutConnection`. By default, tests that need it are skipped."""
        return None

    @pytest.fixture
    def count_kept(self) -> CountKept | None:
        """Return a :data:`CountKept`. By default, its test is skipped."""
        return None

    @pytest.fixture
    def count_taken(self) -> CountTaken | None:
        """Return a :data:`CountTaken`. By default, its test is skipped."""
        return None

    @pytest.fixture
    async def topic(self, bus: Bus, unique: str) -> str:
        """Topic for one test."""
        name = f"conformance.{unique}"
        await bus.ensure_topics([TopicSpec(name), TopicSpec(self.dead_letter_topic)])
        await self.found_groups(
            bus, name, [f"group-{unique}", f"group-{unique}-a", f"group-{unique}-b"]
        )
        await self.found_groups(bus, self.dead_letter_topic, [f"group-{unique}-dead"])
        return name

    @pytest.fixture
    async def second_topic(self, bus: Bus, unique: str) -> str:
        """Second topic for one test."""
        name = f"conformance.{unique}.second"
        await bus.ensure_topics([TopicSpec(name)])
        await self.found_groups(bus, name, [f"group-{unique}"])
        return name

    async def found_groups(self, bus: Bus, topic: str, groups: Iterable[str]) -> None:
        """Create groups before anything is published, on a bus without replay for new groups."""
        if not bus.replay_for_new_groups:
            for group in groups:
                async with bus.subscribe([topic], group=group):
                    pass

    @pytest.fixture
    async def broadcast(self, bus: Bus, unique: str) -> str:
        """Broadcast topic for one test."""
        name = f"conformance.{unique}.broadcast"
        await bus.ensure_topics([TopicSpec(name, broadcast=True)])
        return name

    @pytest.fixture
    def group(self, unique: str) -> str:
        """Consumer group for one test."""
        return f"group-{unique}"

    async def take(
        self, subscription: Subscription, values: Iterable[bytes], *, ack: bool = False
    ) -> list[Delivery]:
        """Receive until each of ``values`` has arrived, and return all received messages."""
        missing, got = set(values), list[Delivery]()
        with anyio.move_on_after(self.patience):
            while missing:
                batch = await subscription.receive(max_messages=100)
                got += batch
                missing -= set(contents(batch))
                if ack:
                    await subscription.ack(batch)
        assert not missing, (
            f"not delivered within {self.patience} s: {sorted(missing)}; delivered: {contents(got)}"
        )
        return got

    async def rest(self, subscription: Subscription) -> list[Delivery]:
        """Return the messages that still arrive, until none has arrived for a while."""
        got: list[Delivery] = []
        for _ in range(MOST_BATCHES):
            batch: Sequence[Delivery] = ()
            with anyio.move_on_after(self.quiet_sec):
                batch = await subscription.receive(max_messages=100)
            if not batch:
                return got
            got += batch
        pytest.fail(
            f"messages still come after {MOST_BATCHES} batches; the last ones: {contents(got[-5:])}"
        )

    async def settled(self, bus: Bus, topic: str, members: list[Subscription]) -> list[list[bytes]]:
        """Publish until the group is balanced, and return the values of each member.

        Each message then goes to one member.
        """
        shares: list[list[bytes]] = []
        began = anyio.current_time()
        with anyio.move_on_after(self.patience):
            for wave in range(100_000):
                shares = await self.share(bus, topic, f"wave{wave}-", members)
                # Members usually share the keys once all have joined. It is not guaranteed that
                # each gets some.
                waited = anyio.current_time() - began > self.patience / 3
                if sum(map(len, shares)) == WAVE and (
                    all(shares) or not bus.key_affinity or waited
                ):
                    return shares
        pytest.fail(
            f"not shared out within {self.patience} s; of the last {WAVE} messages the members"
            f" received {[*map(len, shares)]}"
        )

    async def share(
        self,
        bus: Bus,
        topic: str,
        prefix: str,
        members: list[Subscription],
        *,
        key: str | None = None,
    ) -> list[list[bytes]]:
        """Publish a wave of messages with one key or with many, and return who receives which."""
        sent = spread(topic, WAVE, prefix) if key is None else messages(topic, WAVE, key, prefix)
        shares: list[list[bytes]] = [[] for _ in members]
        missing = set(values(sent))
        await bus.publish(sent)

        async def collect(member: Subscription, share: list[bytes]) -> None:
            while missing:
                # One at a time, so that competing members receive some each.
                batch = await member.receive(max_messages=100 if key is None else 1)
                await member.ack(batch)
                got = [value for value in contents(batch) if value.startswith(prefix.encode())]
                share += got
                missing.difference_update(got)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for member, share in zip(members, shares, strict=True):
                tasks.start_soon(collect, member, share)
        return shares


def needed(fixture: T | None, name: str) -> T:
    """Return an optional fixture of the adapter, or skip the test."""
    if fixture is None:
        pytest.skip(f"needs the fixture {name}")
    return fixture


def open_another(open_bus: OpenBus | None) -> Bus:
    """Open another connection, or skip the test with a reason."""
    return needed(open_bus, "open_bus")()


def needs_key_affinity(bus: Bus) -> None:
    """Skip a test of a promise that only buses with key affinity make."""
    if not bus.key_affinity:
        pytest.skip("this bus has no key affinity")


async def until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the bus is reachable."""
    while True:
        try:
            return await call()
        except BusUnavailable:
            await anyio.sleep(0.01)


async def sweep(
    longest_sec: float, attempts: int, attempt: Callable[[int, float], Awaitable[None]]
) -> None:
    """Call ``attempt`` with its number and a delay that grows from zero to the longest."""
    for number in range(attempts):
        await attempt(number, longest_sec * number / attempts)


def message(topic: str, value: bytes | str, key: str = "k") -> Message:
    return Message(topic, value if isinstance(value, bytes) else value.encode(), key)


def messages(topic: str, count: int, key: str = "k", prefix: str = "m") -> list[Message]:
    """Return numbered messages with one key, so that they are ordered."""
    return [message(topic, f"{prefix}{number}", key) for number in range(count)]


def spread(topic: str, count: int, prefix: str = "m") -> list[Message]:
    """Return numbered messages with different keys, so that they reach all partitions."""
    return [message(topic, f"{prefix}{number}", f"key-{number}") for number in range(count)]


def values(sent: Iterable[Message]) -> list[bytes]:
    return [item.value for item in sent]


def contents(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.value for delivery in deliveries]
