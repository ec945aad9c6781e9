"""What a bus remembers, without waiting: partitions, groups, who owns what, what was acknowledged.

Everything here is plain and synchronous, so that whoever drives it decides what happens when:
:class:`~flowkit_testing._bus.InMemoryBus` lets it happen at once, a simulator as its seed says.
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
    """A copy that shares nothing that could change."""
    headers = _frozen_headers(tuple(message.headers.items())) if message.headers else _NO_HEADERS
    return Message(message.topic, bytes(message.value), message.key, headers)


class Listener:
    """A subscription without a group: a queue of what is published from now on."""

    __slots__ = ("queue", "topics", "wake")

    def __init__(self, topics: Collection[str], wake: Callable[[], None]) -> None:
        self.topics = tuple(dict.fromkeys(topics))
        self.wake = wake
        self.queue: deque[Delivery] = deque()

    @property
    def has_more(self) -> bool:
        return bool(self.queue)

    def fetch(self, limit: int) -> list[Delivery]:
        """Up to ``limit`` messages."""
        return [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]


class Topic:
    """Partitions, and who listens without a group."""

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
    """All topics and groups of one place where buses meet.

    ``places``, ``key_affinity`` and ``replay_for_new_groups`` are the capabilities of
    :class:`flowkit.protocols.Bus` that its buses have.
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
        """Whether the broker is stopped: its buses raise ``BusUnavailable``."""

    def create(self, spec: TopicSpec) -> None:
        """Make a topic, unless it exists."""
        if spec.name not in self.topics:
            self.topics[spec.name] = Topic(self.partitions, broadcast=spec.broadcast)

    def topic(self, name: str) -> Topic:
        try:
            return self.topics[name]
        except KeyError:
            raise BusError(f"there is no topic {name!r}") from None

    def publish(self, messages: Sequence[Message]) -> list[Place]:
        """Append copies of these and say where they are, or raise before anything was appended."""
        found = [(self.topic(message.topic), message) for message in messages]
        return [topic.append(frozen(message)) for topic, message in found]

    def outstanding(self, topic: str, group: str) -> dict[int, tuple[int, int]]:
        """Per partition the first position that the group has not acknowledged, and the end."""
        known = self.topics.get(topic)
        if known is None:
            return {}
        cursors = self.groups[group].cursors.get(topic) if group in self.groups else None
        if cursors is None:
            return {log.number: (self._first(log), log.end) for log in known.partitions}
        return {cursor.log.number: (cursor.committed, cursor.log.end) for cursor in cursors}

    def _first(self, log: PartitionLog) -> int:
        """The position with which a new group starts."""
        return log.oldest if self.replay_for_new_groups else log.end

    # ------------------------------------------------------------ going wrong

    def stop(self) -> None:
        """Be out of reach until :meth:`start`. Messages and groups are kept."""
        self.down = True
        for group in self.groups.values():
            for member in group.members:
                member.wake()
        for topic in self.topics.values():
            for listener in topic.listeners:
                listener.wake()

    def start(self) -> None:
        """Be within reach again."""
        self.down = False

    def check_reach(self) -> None:
        """Raise if the broker is stopped.

        Raises:
            BusUnavailable: it is.
        """
        if self.down:
            raise BusUnavailable("the in-memory broker is stopped")

    def cut(self) -> None:
        """Break all connections: members join again at once, and receive again what they had not
        acknowledged.
        """
        for group in self.groups.values():
            for cursors in group.cursors.values():
                for cursor in cursors:
                    cursor.lend(None if cursor.lease is None else cursor.lease.member)

    def lose_tail(self, topic: str, partition: int, count: int) -> list[Message]:
        """Lose the newest messages of a partition, though they were confirmed; their positions are
        given out again. Returns them.
        """
        log = self.topic(topic).partitions[partition]
        kept = max(0, len(log.entries) - count)
        lost = log.entries[kept:]
        del log.entries[kept:]
        for cursor in log.cursors:
            cursor.forget_tail()
        return lost

    def rewind(self, group: str, topic: str, partition: int, count: int) -> int:
        """Set a group back by up to ``count`` messages, which come again. Returns how many did: the
        last that it is done with are kept.
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
        """A new member of a group, which gets its share at once."""
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
        """Take a member out, unless it is out already; what it had not acknowledged goes to the
        others.
        """
        if member in member.group.members:
            member.group.members.remove(member)
            member.group.rebalance()

    def listen(self, topics: Collection[str], *, wake: Callable[[], None]) -> Listener:
        """A new subscription without a group."""
        found = [self.topic(name) for name in dict.fromkeys(topics)]
        listener = Listener(topics, wake)
        for topic in found:
            topic.listeners.append(listener)
        return listener

    def ignore(self, listener: Listener) -> None:
        """Take a subscription without a group out."""
        for name in listener.topics:
            self.topics[name].listeners.remove(listener)


def acknowledge(deliveries: Iterable[Delivery]) -> None:
    """Note acknowledgements; those of past assignments and of listeners mean nothing."""
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
    """Deliver these again; those of past assignments and of listeners are ignored."""
    for delivery in deliveries:
        lease = delivery.handle
        if lease is not None and lease.cursor.is_held(delivery.position, lease):
            lease.member.unacked -= 1
            lease.cursor.give_back(delivery.position)


__all__ = ["Broker", "Cursor", "Listener", "Member", "Topic", "acknowledge", "frozen", "give_back"]
