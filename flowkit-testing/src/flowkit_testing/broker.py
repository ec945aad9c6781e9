"""What a bus remembers, without waiting: partitions, groups, who owns what, what was acknowledged.

Everything here is plain and synchronous, so that whoever drives it decides what happens when:
:class:`~flowkit_testing.bus.InMemoryBus` lets it happen at once, a simulator as its seed says.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from zlib import crc32

from flowkit.errors import BusError
from flowkit.protocols import Delivery, Message, Place, TopicSpec

_NO_HEADERS: MappingProxyType[str, bytes] = MappingProxyType({})
_TRIM_AT = 512
_KEEP = 256
"""Messages that are kept though every group is done with them, so that a group can be set back."""


@lru_cache(maxsize=1024)
def _frozen_headers(headers: tuple[tuple[str, bytes], ...]) -> MappingProxyType[str, bytes]:
    return MappingProxyType(dict(headers))


def frozen(message: Message) -> Message:
    """A copy that shares nothing that could change."""
    headers = _frozen_headers(tuple(message.headers.items())) if message.headers else _NO_HEADERS
    return Message(message.topic, bytes(message.value), message.key, headers)


class PartitionLog:
    """The messages of one partition, from the first that is kept."""

    __slots__ = ("cursors", "entries", "number", "start")

    def __init__(self, number: int) -> None:
        self.number = number
        self.start = 0
        self.entries: list[Message] = []
        self.cursors: list[Cursor] = []

    @property
    def end(self) -> int:
        return self.start + len(self.entries)

    @property
    def oldest(self) -> int:
        """The position of the oldest message that some group may still want; the log's end holds none back without a group."""
        return min((cursor.committed for cursor in self.cursors), default=self.start)

    def trim(self) -> None:
        """Drop what every group is done with, but for the last of it."""
        start = max(self.start, self.oldest - _KEEP)
        del self.entries[: start - self.start]
        self.start = start


class Cursor:
    """How far a group is in a partition, and on loan to whom."""

    __slots__ = ("acked", "again", "committed", "lease", "log", "next", "out", "ready")

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.committed = self.next = log.oldest
        self.out: set[int] = set()
        self.acked: set[int] = set()
        self.again: list[int] = []
        self.lease: Lease | None = None
        self.ready = False

    @property
    def has_more(self) -> bool:
        return bool(self.again) or self.next < self.log.end

    def take(self, limit: int, into: list[Delivery]) -> None:
        """Append up to ``limit`` deliveries, those that were given back first."""
        log, lease, out = self.log, self.lease, self.out
        entries, start, number = log.entries, log.start, log.number
        while limit and self.again:
            position = heappop(self.again)
            out.add(position)
            into.append(Delivery(entries[position - start], number, position, lease))
            limit -= 1
        first = self.next
        last = self.next = min(first + limit, start + len(entries))
        out.update(range(first, last))
        into.extend(Delivery(entries[position - start], number, position, lease) for position in range(first, last))

    def ack(self, position: int) -> bool:
        """Note an acknowledgement; whether the message was out."""
        if position not in self.out:
            return False
        self.out.remove(position)
        if position != self.committed:
            self.acked.add(position)
            return True
        position += 1
        while position in self.acked:
            self.acked.remove(position)
            position += 1
        self.committed = position
        if position - self.log.start >= _TRIM_AT:
            self.log.trim()
        return True

    def rewind(self, count: int) -> int:
        """Set the group back; whatever comes after is delivered again. Returns by how many messages."""
        first = max(self.log.start, self.committed - count)
        moved = self.committed - first
        self.again += [*range(first, self.committed), *self.acked]
        self.acked.clear()
        heapify(self.again)
        self.committed = first
        self.announce()
        return moved

    def forget_tail(self) -> None:
        """The log has become shorter. What is on loan is lent anew, as after the failure of a server."""
        end = self.log.end
        self.lend(None if self.lease is None else self.lease.member)
        self.committed, self.next = min(self.committed, end), min(self.next, end)
        self.acked = {position for position in self.acked if position < end}
        self.again = [position for position in self.again if position < end]
        heapify(self.again)

    def lend(self, member: "Member | None") -> None:
        """Give the partition to another member; what the last one had not acknowledged goes with it."""
        if self.lease is not None:
            holder = self.lease.member
            holder.unacked -= len(self.out)
            if self.ready:
                holder.ready.remove(self)
        self.ready = False
        self.again += self.out
        heapify(self.again)
        self.out.clear()
        self.lease = None if member is None else Lease(self, member)
        self.announce()

    def announce(self) -> None:
        """Tell the member that holds the partition, if it has something new."""
        if self.lease is not None and self.has_more:
            member = self.lease.member
            if not self.ready:
                self.ready = True
                member.ready.append(self)
            member.wake()


class Lease:
    """One assignment of a partition to a member. A delivery whose lease is not the cursor's present one is out of date."""

    __slots__ = ("cursor", "member")

    def __init__(self, cursor: Cursor, member: "Member") -> None:
        self.cursor = cursor
        self.member = member


class Member:
    """A subscription within a group. ``wake`` is called when there may be something to fetch."""

    __slots__ = ("group", "max_unacked", "ready", "topics", "unacked", "wake")

    def __init__(self, group: "Group", topics: Collection[str], max_unacked: int, wake: Callable[[], None]) -> None:
        self.group = group
        self.topics = frozenset(topics)
        self.max_unacked = max_unacked
        self.wake = wake
        self.unacked = 0
        self.ready: deque[Cursor] = deque()

    @property
    def has_more(self) -> bool:
        return bool(self.ready) and self.unacked < self.max_unacked

    def fetch(self, limit: int) -> list[Delivery]:
        """Up to ``limit`` messages, as far as the window allows."""
        limit = min(limit, self.max_unacked - self.unacked)
        found: list[Delivery] = []
        ready = self.ready
        while ready and len(found) < limit:
            cursor = ready.popleft()
            cursor.take(limit - len(found), found)
            cursor.ready = cursor.has_more
            if cursor.ready:
                # At the back, so that a full partition does not keep the others waiting.
                ready.append(cursor)
        self.unacked += len(found)
        return found


class Group:
    """Members that share partitions."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.cursors: dict[str, list[Cursor]] = {}

    def rebalance(self) -> None:
        """Spread the partitions of each topic evenly over those who listen to it, moving as few as possible."""
        for topic, cursors in self.cursors.items():
            shares: dict[Member, int] = {member: 0 for member in self.members if topic in member.topics}
            fair, over = divmod(len(cursors), len(shares)) if shares else (0, 0)
            homeless: list[Cursor] = []
            for cursor in cursors:
                holder = cursor.lease.member if cursor.lease is not None else None
                if holder not in shares or shares[holder] > fair or (shares[holder] == fair and not over):
                    homeless.append(cursor)
                    continue
                # Where the partitions do not come out even, some members have one more.
                over -= shares[holder] == fair
                shares[holder] += 1
            for cursor in homeless:
                poorest = min(shares, key=shares.__getitem__) if shares else None
                if poorest is not None:
                    shares[poorest] += 1
                cursor.lend(poorest)


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
    """All topics and groups of one place where buses meet."""

    def __init__(self, *, partitions: int = 8) -> None:
        self.partitions = partitions
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}

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
            return {log.number: (log.oldest, log.end) for log in known.partitions}
        return {cursor.log.number: (cursor.committed, cursor.log.end) for cursor in cursors}

    # ------------------------------------------------------------ going wrong

    def lose_tail(self, topic: str, partition: int, count: int) -> list[Message]:
        """Lose the newest messages of a partition, though they were confirmed; their positions are given out again. Returns them."""
        log = self.topic(topic).partitions[partition]
        kept = max(0, len(log.entries) - count)
        lost = log.entries[kept:]
        del log.entries[kept:]
        for cursor in log.cursors:
            cursor.forget_tail()
        return lost

    def rewind(self, group: str, topic: str, partition: int, count: int) -> int:
        """Set a group back by up to ``count`` messages, which come again. Returns how many did: the last that it is done with are kept."""
        return self.groups[group].cursors[topic][partition].rewind(count)

    # ------------------------------------------------------------ members

    def join(self, group_name: str, topics: Collection[str], *, max_unacked: int, wake: Callable[[], None]) -> Member:
        """A new member of a group, which gets its share at once."""
        logs = {name: self.topic(name).partitions for name in topics}
        group = self.groups.setdefault(group_name, Group())
        for name, partitions in logs.items():
            if name not in group.cursors:
                group.cursors[name] = [Cursor(log) for log in partitions]
                for cursor in group.cursors[name]:
                    cursor.log.cursors.append(cursor)
        member = Member(group, topics, max_unacked, wake)
        group.members.append(member)
        group.rebalance()
        return member

    def leave(self, member: Member) -> None:
        """Take a member out; what it had not acknowledged goes to the others."""
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
        if lease is not None and lease.cursor.lease is lease and lease.cursor.ack(delivery.position):
            lease.member.unacked -= 1
            freed[lease.member] = None
    for member in freed:
        if member.ready:
            member.wake()


def give_back(deliveries: Iterable[Delivery]) -> None:
    """Deliver these again; those of past assignments and of listeners are ignored."""
    for delivery in deliveries:
        lease = delivery.handle
        if lease is not None and lease.cursor.lease is lease and delivery.position in lease.cursor.out:
            lease.cursor.out.remove(delivery.position)
            heappush(lease.cursor.again, delivery.position)
            lease.member.unacked -= 1
            lease.cursor.announce()
