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
"""How many messages are published to see how a group shares them out."""

MOST_BATCHES = 10_000
"""More batches than a test publishes messages. A bus that goes on delivering after them repeats
messages without end.
"""

KillMember = Callable[[str, str, int], Awaitable[Sequence[bytes]]]
"""Takes a topic, a group and a count: a member in another process receives so many messages,
acknowledges none and is killed.
"""


class PausedMember(Protocol):
    """A member in another process that is suspended with messages that it has not acknowledged."""

    values: Sequence[bytes]
    """What it received."""

    async def acknowledge(self) -> None:
        """Let it continue, acknowledge what it received before, and leave."""


PauseMember = Callable[[str, str, int], AbstractAsyncContextManager[PausedMember]]
"""Takes a topic, a group and a count: a member in another process receives so many messages and is
suspended; leaving kills it.
"""
StopServer = Callable[[], AbstractAsyncContextManager[object]]
"""The server is out of reach while the context is open, and has its data afterwards."""
CutConnection = Callable[[], Awaitable[None]]
"""Breaks the connections between the bus and its server once; new ones can be made at once."""
CountKept = Callable[[str], Awaitable[int]]
"""Takes a topic: how many messages of it the server keeps."""
CountTaken = Callable[[str, str], Awaitable[int]]
"""Takes a topic and a group: how many messages the members have taken from the server and not
acknowledged.
"""


class BusSuite(Conformance):
    """What the parts of the bus suite have in common."""

    dead_letter_topic: ClassVar[str] = "flowkit.dlq"
    """The topic to which the bus rejects."""

    silence_sec: ClassVar[float | None] = None
    """Seconds without a sign of a member after which the bus gives its messages to others; the test
    that needs it is skipped without.
    """

    many: ClassVar[int] = 1500
    """More messages than the bus keeps of a topic whose messages are all acknowledged, and of a
    broadcast topic.
    """

    prefetch: ClassVar[int] = 1000
    """How many messages a member may take from the server beyond those that its caller received."""

    @pytest.fixture
    def open_bus(self) -> OpenBus | None:
        """A callable that gives another bus, not yet entered, over the same server; tests that need
        one are skipped without.
        """
        return None

    @pytest.fixture
    def closed_bus(self) -> Bus | None:
        """An entered bus that may not create topics; the test that needs it is skipped without."""
        return None

    @pytest.fixture
    def bus_without_dead_letters(self) -> Bus | None:
        """An entered bus over the same server that cannot store dead letters; the test that needs
        it is skipped without.
        """
        return None

    @pytest.fixture
    def kill_member(self) -> KillMember | None:
        """See :data:`KillMember`; tests that need it are skipped without."""
        return None

    @pytest.fixture
    def pause_member(self) -> PauseMember | None:
        """See :data:`PauseMember`; tests that need it are skipped without."""
        return None

    @pytest.fixture
    def stop_server(self) -> StopServer | None:
        """See :data:`StopServer`; tests that need it are skipped without."""
        return None

    @pytest.fixture
    def cut_connection(self) -> CutConnection | None:
        """See :data:`CutConnection`; tests that need it are skipped without."""
        return None

    @pytest.fixture
    def count_kept(self) -> CountKept | None:
        """See :data:`CountKept`; the test that needs it is skipped without."""
        return None

    @pytest.fixture
    def count_taken(self) -> CountTaken | None:
        """See :data:`CountTaken`; the test that needs it is skipped without."""
        return None

    @pytest.fixture
    async def topic(self, bus: Bus, unique: str) -> str:
        """A topic of the test's own."""
        name = f"conformance.{unique}"
        await bus.ensure_topics([TopicSpec(name), TopicSpec(self.dead_letter_topic)])
        await self.found_groups(
            bus, name, [f"group-{unique}", f"group-{unique}-a", f"group-{unique}-b"]
        )
        await self.found_groups(bus, self.dead_letter_topic, [f"group-{unique}-dead"])
        return name

    @pytest.fixture
    async def second_topic(self, bus: Bus, unique: str) -> str:
        """Another topic of the test's own."""
        name = f"conformance.{unique}.second"
        await bus.ensure_topics([TopicSpec(name)])
        await self.found_groups(bus, name, [f"group-{unique}"])
        return name

    async def found_groups(self, bus: Bus, topic: str, groups: Iterable[str]) -> None:
        """Let groups exist before anything is published, on a bus without replay for new groups."""
        if not bus.replay_for_new_groups:
            for group in groups:
                async with bus.subscribe([topic], group=group):
                    pass

    @pytest.fixture
    async def broadcast(self, bus: Bus, unique: str) -> str:
        """A broadcast topic of the test's own."""
        name = f"conformance.{unique}.broadcast"
        await bus.ensure_topics([TopicSpec(name, broadcast=True)])
        return name

    @pytest.fixture
    def group(self, unique: str) -> str:
        """A consumer group of the test's own."""
        return f"group-{unique}"

    async def take(
        self, subscription: Subscription, values: Iterable[bytes], *, ack: bool = False
    ) -> list[Delivery]:
        """Receive until each of ``values`` was seen; all that came meanwhile."""
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
        """What still comes, until nothing has come for a while."""
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
        """Publish until the group is shared out, so that each message goes to one member, and
        return who gets what then.
        """
        shares: list[list[bytes]] = []
        began = anyio.current_time()
        with anyio.move_on_after(self.patience):
            for wave in range(100_000):
                shares = await self.share(bus, topic, f"wave{wave}-", members)
                # Members usually share the keys once all have joined. Nothing promises that each of
                # them gets some.
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
        """Publish a wave of messages, with one key or with many, and see who gets which of them."""
        sent = spread(topic, WAVE, prefix) if key is None else messages(topic, WAVE, key, prefix)
        shares: list[list[bytes]] = [[] for _ in members]
        missing = set(values(sent))
        await bus.publish(sent)

        async def collect(member: Subscription, share: list[bytes]) -> None:
            while missing:
                # One at a time, so that members which compete get some each.
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
    """A fixture that an adapter supplies where it can; the test is skipped without."""
    if fixture is None:
        pytest.skip(f"needs the fixture {name}")
    return fixture


def open_another(open_bus: OpenBus | None) -> Bus:
    """Another connection, or the reason why the test is skipped."""
    return needed(open_bus, "open_bus")()


def needs_key_affinity(bus: Bus) -> None:
    """Skip a test of what only a bus with key affinity promises."""
    if not bus.key_affinity:
        pytest.skip("this bus has no key affinity")


async def until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the bus is within reach."""
    while True:
        try:
            return await call()
        except BusUnavailable:
            await anyio.sleep(0.01)


async def sweep(
    longest_sec: float, attempts: int, attempt: Callable[[int, float], Awaitable[None]]
) -> None:
    """Call ``attempt`` with its number and a time, which grows from nothing to the longest."""
    for number in range(attempts):
        await attempt(number, longest_sec * number / attempts)


def message(topic: str, value: bytes | str, key: str = "k") -> Message:
    return Message(topic, value if isinstance(value, bytes) else value.encode(), key)


def messages(topic: str, count: int, key: str = "k", prefix: str = "m") -> list[Message]:
    """Numbered messages with one key, so that they have an order."""
    return [message(topic, f"{prefix}{number}", key) for number in range(count)]


def spread(topic: str, count: int, prefix: str = "m") -> list[Message]:
    """Numbered messages with different keys, so that they meet all partitions."""
    return [message(topic, f"{prefix}{number}", f"key-{number}") for number in range(count)]


def values(sent: Iterable[Message]) -> list[bytes]:
    return [item.value for item in sent]


def contents(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.value for delivery in deliveries]
