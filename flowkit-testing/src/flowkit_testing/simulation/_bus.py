"""The bus of a simulated cluster: one broker, and a connection for each process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

from flowkit.errors import BusUnavailable, MessageTooLarge
from flowkit.protocols import CheckResult, Delivery, Message, Place, Subscription, TopicSpec
from flowkit_testing._broker import Broker, Cursor, Listener, Member, acknowledge, give_back
from flowkit_testing._bus import dead_letter
from flowkit_testing.simulation._process import Process, State
from flowkit_testing.simulation._world import SESSION_TIMEOUT_SEC, World

PATIENCE_SEC = 3.0
"""Seconds that a connection waits for an unreachable broker."""
DEAD_LETTER_TOPIC = "flowkit.dlq"


class Seat:
    """The broker's side of a subscription."""

    def __init__(
        self, process: Process, topics: Sequence[str], group: str | None, max_unacked: int
    ) -> None:
        self.process = process
        self.topics = list(topics)
        self.group = group
        self.max_unacked = max_unacked
        self.source: Member | Listener | None = None
        self.wanted = 0
        """The number of messages that the member asks for now."""
        self.answered: deque[Delivery] = deque()
        self.failed: Exception | None = None
        self.news = asyncio.Event()
        self.left = False
        self.coming = False
        self.scheduled = False


class BusServer:
    """The broker of a simulated cluster: topics, groups, and the faults of arriving requests."""

    def __init__(
        self, world: World, broker: Broker, *, max_message_bytes: int = 1024 * 1024
    ) -> None:
        self.world = world
        self.broker = broker
        self.max_message_bytes = max_message_bytes
        self.down = False
        self.on_publish: list[Callable[[Sequence[Message]], None]] = []
        """Called with all messages of each publish request, also if the request fails."""
        self.on_arrival: list[Callable[[Sequence[Message]], None]] = []
        self.on_ack: list[Callable[[Sequence[Delivery], str], None]] = []
        self.seats: list[Seat] = []
        self._held: dict[Cursor, float] = {}

    # ------------------------------------------------------------ publishing

    def use(self, names: Collection[str]) -> None:
        for name in dict.fromkeys(names):
            if name not in self.broker.topics:
                self.broker.create(TopicSpec(name))

    def publish(self, future: "asyncio.Future[Any]", messages: list[Message], who: str) -> None:
        """Handle a publish request that has arrived."""
        world = self.world
        if self.down:
            error = BusUnavailable("publish: the bus is unreachable")
            world.call(world.chances.uniform(0.05, PATIENCE_SEC), world.settle, future, None, error)
        elif world.should_inject("publish_refused", who):
            world.settle(future, None, BusUnavailable("publish: refused"))
        elif world.should_inject("publish_partial", who):
            parts = {
                name: world.chances.random() < 0.5
                for name in dict.fromkeys(message.key for message in messages)
            }
            self.append([message for message in messages if parts[message.key]], who)
            world.settle(future, None, BusUnavailable("publish: some were not confirmed"))
        elif world.should_inject("publish_unconfirmed", who):
            self.append(messages, who)
            world.settle(future, None, BusUnavailable("publish: not confirmed"))
        else:
            world.settle(future, self.append(messages, who))

    def append(self, messages: list[Message], who: str) -> list[Place]:
        for message in messages:
            self.world.note(
                "bus", f"{message.topic} <- {message.key} {kind_of(message.value)} by {who}"
            )
        for watch in self.on_arrival:
            watch(messages)
        self.use([message.topic for message in messages])
        places = self.broker.publish(messages)
        if messages and self.world.should_inject("duplicate", who):
            self.broker.publish(messages)
        for message, (partition, position) in zip(messages, places, strict=True):
            log = self.broker.topics[message.topic].partitions[partition]
            unread = all(cursor.next <= position for cursor in log.cursors) and position < log.end
            if unread and self.world.should_inject(
                "tail_loss", who, f"{message.topic}.{partition} from {position}"
            ):
                self.broker.lose_tail(message.topic, partition, log.end - position)
        return places

    def acknowledge(self, deliveries: list[Delivery], who: str) -> None:
        for watch in self.on_ack:
            watch(deliveries, who)
        acknowledge(deliveries)

    def outstanding(self, future: "asyncio.Future[Any]", topic: str, group: str) -> None:
        if self.down:
            self.world.settle(future, None, BusUnavailable("outstanding: the bus is unreachable"))
        else:
            self.world.settle(
                future, self.broker.outstanding(topic, group) if self.broker.places else None
            )

    # ------------------------------------------------------------ seats in groups

    def join(self, future: "asyncio.Future[None]", seat: Seat) -> None:
        if not seat.process.alive:
            return
        if self.down:
            self.world.settle(future, None, BusUnavailable("subscribe: the bus is unreachable"))
            return
        self.use(seat.topics)
        self._enter(seat)
        self.seats.append(seat)
        seat.process.subscriptions.append(seat)
        self.world.settle(future)

    def _enter(self, seat: Seat) -> None:
        def wake() -> None:
            self._look_soon(seat, self.world.latency())

        if seat.group is None:
            seat.source = self.broker.listen(seat.topics, wake=wake)
        else:
            self.world.note("bus", f"{seat.process.name} joins {seat.group}")
            seat.source = self.broker.join(
                seat.group, seat.topics, max_unacked=seat.max_unacked, wake=wake
            )

    def leave(self, seat: Seat) -> None:
        """End a subscription."""
        self.expel(seat)
        if seat in self.seats:
            self.seats.remove(seat)

    def expel(self, seat: Seat) -> None:
        """Remove a member from its group. The member notices at its next request."""
        source, seat.source = seat.source, None
        if isinstance(source, Member):
            self.world.note("bus", f"{seat.process.name} is out of {seat.group}")
            self.broker.leave(source)
        elif source is not None:
            self.broker.ignore(source)

    def lost(self, process: Process) -> None:
        """Handle the end of a process. Its groups notice after the session timeout."""
        for seat in process.subscriptions:
            self.world.call(SESSION_TIMEOUT_SEC, self.leave, seat)

    def paused(self, process: Process, resumes_at: float) -> None:
        if resumes_at - self.world.now() > SESSION_TIMEOUT_SEC:
            self.world.call(SESSION_TIMEOUT_SEC, self._expel_paused, process)

    def _expel_paused(self, process: Process) -> None:
        if process.state is State.PAUSED:
            for seat in process.subscriptions:
                if seat.group is not None:
                    self.expel(seat)

    # ------------------------------------------------------------ receiving

    def poll(self, seat: Seat, limit: int) -> None:
        """Handle a member's request for messages. One that arrives while messages are on their way
        is dropped: its own could overtake them.
        """
        if seat.left or seat.coming:
            return
        if self.down:
            self.world.call(self.world.chances.uniform(0.05, PATIENCE_SEC), self._fail, seat)
        elif self.world.should_inject("receive_fails", seat.process.name):
            self._fail(seat)
        else:
            seat.wanted = limit
            self._look(seat)

    def _fail(self, seat: Seat) -> None:
        seat.failed = BusUnavailable("receive: the bus is unreachable")
        seat.wanted = 0
        seat.news.set()

    def _look_soon(self, seat: Seat, delay: float) -> None:
        if seat.wanted and not seat.scheduled:
            seat.scheduled = True
            self.world.call(delay, self._look, seat)

    def look(self, seat: Seat) -> None:
        """Deliver messages to a waiting member, if there are any."""
        self._look_soon(seat, 0.0)

    def _look(self, seat: Seat) -> None:
        seat.scheduled = False
        if not seat.wanted or seat.left or self.down or not seat.process.alive:
            return
        if seat.source is None:
            self._enter(seat)
        found = self._fetch(seat)
        if found:
            seat.wanted = 0
            seat.coming = True
            self.world.call(self.world.latency(), self._hand_out, seat, found)

    def _hand_out(self, seat: Seat, found: list[Delivery]) -> None:
        seat.coming = False
        seat.answered.extend(found)
        seat.news.set()

    def _fetch(self, seat: Seat) -> list[Delivery]:
        source, world = seat.source, self.world
        if isinstance(source, Listener):
            found = source.fetch(seat.wanted)
            return [
                delivery
                for delivery in found
                if not world.should_inject("broadcast_lost", seat.process.name)
            ]
        assert source is not None
        if not world.active:
            return source.fetch(seat.wanted)
        ready = list(source.ready)
        world.chances.shuffle(ready)
        held = []
        for cursor in ready:
            if self._held.get(cursor, 0.0) > world.now():
                held.append(cursor)
            elif world.should_inject("delay", seat.process.name):
                self._held[cursor] = world.now() + world.between(0.01, world.faults.delay_sec)
                held.append(cursor)
        source.ready = deque(cursor for cursor in ready if cursor not in held)
        found = source.fetch(seat.wanted)
        source.ready.extend(held)
        if held and not found:
            self._look_soon(
                seat, max(0.001, min(self._held[cursor] for cursor in held) - world.now())
            )
        return found

    def heal(self) -> None:
        """Release all messages that are held back."""
        self.down = False
        self._held.clear()
        for seat in self.seats:
            self.look(seat)

    # ------------------------------------------------------------ faults of groups

    def shuffle_group(self) -> bool:
        """Reassign the partitions of a group without notifying the members that lose them."""
        groups = [(name, group) for name, group in self.broker.groups.items() if group.members]
        if not groups:
            return False
        name, group = self.world.chances.choice(groups)
        self.world.inject("rebalance", "bus", name)
        for topic, cursors in group.cursors.items():
            members = [member for member in group.members if topic in member.topics]
            for cursor in cursors:
                if members and self.world.chances.random() < 0.7:
                    cursor.lend(self.world.chances.choice(members))
        return True

    def rewind(self) -> bool:
        """Move a group back to an offset before its acknowledged one."""
        behind = [
            (name, topic, cursor)
            for name, group in self.broker.groups.items()
            for topic, cursors in group.cursors.items()
            for cursor in cursors
            if cursor.committed > cursor.log.start
        ]
        if not behind:
            return False
        name, topic, cursor = self.world.chances.choice(behind)
        by = self.broker.rewind(name, topic, cursor.log.number, self.world.chances.randint(1, 50))
        self.world.inject("rewind", "bus", f"{name} {topic}.{cursor.log.number} by {by}")
        return True


def kind_of(value: bytes) -> str:
    """Return the kind of a message, for the event log."""
    return value.decode("utf-8", "replace")[:160]


class SimBus:
    """The :class:`~flowkit.protocols.Bus` as one process sees it."""

    def __init__(self, server: BusServer, process: Process) -> None:
        self.server = server
        self.process = process
        self._last_arrival = 0.0
        self.max_message_bytes = server.max_message_bytes
        self.places = server.broker.places
        self.key_affinity = server.broker.key_affinity
        self.replay_for_new_groups = server.broker.replay_for_new_groups

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        specs = list(topics)

        def create(future: "asyncio.Future[None]") -> None:
            if self.server.down:
                self.server.world.settle(
                    future, None, BusUnavailable("ensure_topics: the bus is unreachable")
                )
                return
            for spec in specs:
                self.server.broker.create(spec)
            self.server.world.settle(future)

        await self._ask(create)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        for message in messages:
            if len(message.value) > self.max_message_bytes:
                raise MessageTooLarge(
                    f"a message of {len(message.value)} bytes is above the limit of"
                    f" {self.max_message_bytes}"
                )
        world = self.server.world
        for watch in self.server.on_publish:
            watch(messages)
        if world.should_inject("publish_late", self.process.name):
            # Later requests arrive later: a producer keeps its order.
            self._last_arrival = max(self._last_arrival, world.now()) + world.between(0.05, 10)
            world.call(
                self._last_arrival - world.now(),
                self.server.append,
                list(messages),
                self.process.name,
            )
            future: asyncio.Future[None] = world.loop.create_future()
            world.call(0.05, world.settle, future, None, BusUnavailable("publish: timed out"))
            await future
        places: Sequence[Place | None] = await self._ask(
            self.server.publish, list(messages), self.process.name
        )
        return places if self.places else [None] * len(messages)

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
        found: Mapping[int, tuple[int, int]] | None = await self._ask(
            self.server.outstanding, topic, group
        )
        return found

    async def _ask(self, arrive: Any, *args: Any) -> Any:
        future: asyncio.Future[Any] = self.server.world.loop.create_future()
        self.tell(arrive, future, *args)
        return await future

    def tell(self, arrive: Any, *args: Any) -> None:
        """Send a request without waiting for an answer.

        Requests of one connection arrive in order.
        """
        world = self.server.world
        self._last_arrival = max(self._last_arrival, world.now() + world.latency())
        world.call(self._last_arrival - world.now(), arrive, *args)

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe(Seat(self.process, topics, group, max_unacked))

    @asynccontextmanager
    async def _subscribe(self, seat: Seat) -> AsyncIterator[Subscription]:
        await self._ask(self.server.join, seat)
        try:
            yield _Subscription(self, seat)
        finally:
            seat.left = True
            self.tell(self.server.leave, seat)

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        return [CheckResult("bus", True, "simulated")]


class _Subscription:
    """The process's side of a subscription."""

    def __init__(self, bus: SimBus, seat: Seat) -> None:
        self._bus = bus
        self._seat = seat

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        seat, server = self._seat, self._bus.server
        await asyncio.sleep(0)
        while not seat.answered:
            if seat.failed is not None:
                failed, seat.failed = seat.failed, None
                raise failed
            seat.news.clear()
            if not seat.wanted and not seat.coming:
                seat.wanted = max_messages
                self._bus.tell(server.poll, seat, max_messages)
            await seat.news.wait()
        return [seat.answered.popleft() for _ in range(min(max_messages, len(seat.answered)))]

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        self._bus.tell(self._bus.server.acknowledge, list(deliveries), self._bus.process.name)
        await asyncio.sleep(0)

    async def release(self, deliveries: Collection[Delivery]) -> None:
        self._bus.tell(give_back, list(deliveries))
        await asyncio.sleep(0)

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        letters = [dead_letter(delivery, DEAD_LETTER_TOPIC, reason) for delivery in deliveries]
        await self._bus.publish(letters)
        self._bus.tell(acknowledge, list(deliveries))
