"""State of a bus: partitions, groups, assignments and acknowledgements.

Everything here is synchronous, so the caller decides when it happens:
:class:`~flowkit_testing._bus.InMemoryBus` does it immediately, a simulator as its seed determines.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from types import MappingProxyType
from zlib import crc32

from flowkit.errors import BusError, BusUnavailable
from flowkit.protocols import Delivery, Message, Place, TopicSpec
from flowkit_testing._groups import Cursor, Group, Member, PartitionLog, SharedGroup

_NO_HEADERS: MappingProxyType[str, bytes] = MappingProxyType({})


@lru_cache(maxsize=1024)
def _frozen_headers(headers: tuple[tuple[str, bytes], ...]) -> MappingProxyType[str, bytes]:
    return MappingProxyType(dict(headers))


def frozen(message: Message) -> Message:
    """Return a copy without shared mutable parts."""
    headers = _frozen_headers(tuple(message.headers.items())) if message.headers else _NO_HEADERS
    return Message(message.topic, bytes(message.value), message.key, headers)


class Listener:
    """Subscription without a group: a queue of the messages published from now on."""

    __slots__ = ("queue", "topics", "wake")

    def __init__(self, topics: Collection[str], wake: Callable[[], None]) -> None:
        self.topics = tuple(dict.fromkeys(topics))
        self.wake = wake
        self.queue: deque[Delivery] = deque()

    @property
    def has_more(self) -> bool:
        return bool(self.queue)

    def fetch(self, limit: int) -> list[Delivery]:
        """Return up to ``limit`` messages."""
        return [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]


class Topic:
    """Partitions of a topic, and its subscriptions without a group."""

    __slots__ = ("broadcast", "listeners", "partitions")

    def __init__(self, partitions: int, *, broadcast: bool) -> None:
        self.broadcast = broadcast
        self.partitions = [PartitionLog(number) for number in range(partitions)]
        self.listeners: list[Listener] = []

    def append(self, message: Message) -> Place:
        log = self.partitions[crc32(message.key.encode()) % len(self.partitions)]
        place = log.number, log.end
        for listener in self.listeners:
            listener.queue.append(Delivery(message, *place))
            listener.wake()
        if self.broadcast and not log.cursors:
            log.start += 1
            return place
        log.entries.append(message)
        for cursor in log.cursors:
            if not cursor.ready:
                cursor.announce()
        return place


class Broker:
    """Topics and groups shared by several :class:`InMemoryBus`.

    ``places``, ``key_affinity`` and ``replay_for_new_groups`` are the
    :class:`flowkit.protocols.Bus` capabilities of these buses.
    """

    def __init__(
        self,
        *,
        partitions: int = 8,
        places: bool = True,
        key_affinity: bool = True,
        replay_for_new_groups: bool = True,
    ) -> None:
        self.partitions = partitions
        self.places = places
        self.key_affinity = key_affinity
        self.replay_for_new_groups = replay_for_new_groups
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.down = False
        """True if the broker is stopped: its buses raise ``BusUnavailable``."""

    def create(self, spec: TopicSpec) -> None:
        """Create a topic, unless it exists."""
        if spec.name not in self.topics:
            self.topics[spec.name] = Topic(self.partitions, broadcast=spec.broadcast)

    def topic(self, name: str) -> Topic:
        try:
            return self.topics[name]
        except KeyError:
            raise BusError(f"there is no topic {name!r}") from None

    def publish(self, messages: Sequence[Message]) -> list[Place]:
        """Append copies of messages and return their positions. On an error, append none."""
        found = [(self.topic(message.topic), message) for message in messages]
        return [topic.append(frozen(message)) for topic, message in found]

    def outstanding(self, topic: str, group: str) -> dict[int, tuple[int, int]]:
        """Return the first unacknowledged position and the end of each partition."""
        known = self.topics.get(topic)
        if known is None:
            return {}
        cursors = self.groups[group].cursors.get(topic) if group in self.groups else None
        if cursors is None:
            return {log.number: (self._first(log), log.end) for log in known.partitions}
        return {cursor.log.number: (cursor.committed, cursor.log.end) for cursor in cursors}

    def _first(self, log: PartitionLog) -> int:
        """Return the position at which a new group starts."""
        return log.oldest if self.replay_for_new_groups else log.end

    # ------------------------------------------------------------ going wrong

    def stop(self) -> None:
        """Make the broker unreachable until :meth:`start`. Messages and groups are kept."""
        self.down = True
        for group in self.groups.values():
            for member in group.members:
                member.wake()
        for topic in self.topics.values():
            for listener in topic.listeners:
                listener.wake()

    def start(self) -> None:
        """Make the broker reachable again."""
        self.down = False

    def check_reach(self) -> None:
        """Check that the broker is reachable.

        Raises:
            BusUnavailable: the broker is stopped.
        """
        if self.down:
            raise BusUnavailable("the in-memory broker is stopped")

    def cut(self) -> None:
        """Close all connections.

        Members rejoin immediately and receive their unacknowledged messages again.
        """
        for group in self.groups.values():
            for cursors in group.cursors.values():
                for cursor in cursors:
                    cursor.lend(None if cursor.lease is None else cursor.lease.member)

    def lose_tail(self, topic: str, partition: int, count: int) -> list[Message]:
        """Lose and return the newest messages of a partition, although they were confirmed.

        Their positions are used again.
        """
        log = self.topic(topic).partitions[partition]
        kept = max(0, len(log.entries) - count)
        lost = log.entries[kept:]
        del log.entries[kept:]
        for cursor in log.cursors:
            cursor.forget_tail()
        return lost

    def rewind(self, group: str, topic: str, partition: int, count: int) -> int:
        """Rewind a group by up to ``count`` messages and return how many are delivered again.

        Only the most recently completed messages are kept and can be delivered again.
        """
        return self.groups[group].cursors[topic][partition].rewind(count)

    # ------------------------------------------------------------ members

    def join(
        self,
        group_name: str,
        topics: Collection[str],
        *,
        max_unacked: int,
        wake: Callable[[], None],
    ) -> Member:
        """Add a member to a group and assign its partitions immediately."""
        logs = {name: self.topic(name).partitions for name in topics}
        group = self.groups.get(group_name)
        if group is None:
            group = self.groups[group_name] = Group() if self.key_affinity else SharedGroup()
        for name, partitions in logs.items():
            if name not in group.cursors:
                group.cursors[name] = [group.cursor(log, self._first(log)) for log in partitions]
                for cursor in group.cursors[name]:
                    cursor.log.cursors.append(cursor)
        member = group.member(topics, max_unacked, wake)
        group.members.append(member)
        group.rebalance()
        return member

    def leave(self, member: Member) -> None:
        """Remove a member, unless it is removed already.

        Its unacknowledged messages are assigned to the other members.
        """
        if member in member.group.members:
            member.group.members.remove(member)
            member.group.rebalance()

    def listen(self, topics: Collection[str], *, wake: Callable[[], None]) -> Listener:
        """Add a subscription without a group."""
        found = [self.topic(name) for name in dict.fromkeys(topics)]
        listener = Listener(topics, wake)
        for topic in found:
            topic.listeners.append(listener)
        return listener

    def ignore(self, listener: Listener) -> None:
        """Remove a subscription without a group."""
        for name in listener.topics:
            self.topics[name].listeners.remove(listener)


def acknowledge(deliveries: Iterable[Delivery]) -> None:
    """Record acknowledgements. Those of past assignments and of listeners are ignored."""
    freed: dict[Member, None] = {}
    for delivery in deliveries:
        lease = delivery.handle
        if lease is not None and lease.cursor.is_held(delivery.position, lease):
            lease.cursor.ack(delivery.position)
            lease.member.unacked -= 1
            freed[lease.member] = None
    for member in freed:
        if member.has_more:
            member.wake()


def give_back(deliveries: Iterable[Delivery]) -> None:
    """Redeliver messages. Those of past assignments and of listeners are ignored."""
    for delivery in deliveries:
        lease = delivery.handle
        if lease is not None and lease.cursor.is_held(delivery.position, lease):
            lease.member.unacked -= 1
            lease.cursor.give_back(delivery.position)


__all__ = ["Broker", "Cursor", "Listener", "Member", "Topic", "acknowledge", "frozen", "give_back"]
