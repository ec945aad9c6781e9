"""Consumer groups of an in-memory broker: positions, assignments and deliveries."""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush

from flowkit.protocols import Delivery, Message

_TRIM_AT = 512
_KEEP = 256
"""Messages kept although all groups have acknowledged them, so that a group can be rewound."""


class PartitionLog:
    """Messages of one partition, from the first that is kept."""

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
        """Return the oldest position that a group still needs, or the end without groups."""
        return min((cursor.committed for cursor in self.cursors), default=self.start)

    def trim(self) -> None:
        """Delete the messages that all groups have completed, except the last ``_KEEP``."""
        start = max(self.start, self.oldest - _KEEP)
        del self.entries[: start - self.start]
        self.start = start


class Cursor:
    """Position of a group in a partition, and the member that holds it."""

    __slots__ = ("acked", "again", "committed", "lease", "log", "next", "out", "ready")

    def __init__(self, log: PartitionLog, first: int) -> None:
        self.log = log
        self.committed = self.next = first
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
        into.extend(
            Delivery(entries[position - start], number, position, lease)
            for position in range(first, last)
        )

    def is_held(self, position: int, lease: "Lease") -> bool:
        """Tell whether a message is delivered under this lease."""
        return self.lease is lease and position in self.out

    def give_back(self, position: int) -> None:
        """Redeliver a message that is held."""
        self.out.remove(position)
        heappush(self.again, position)
        self.announce()

    def ack(self, position: int) -> None:
        """Record the acknowledgement of a message that is held."""
        self.out.remove(position)
        if position != self.committed:
            self.acked.add(position)
            return
        position += 1
        while position in self.acked:
            self.acked.remove(position)
            position += 1
        self.committed = position
        if position - self.log.start >= _TRIM_AT:
            self.log.trim()

    def rewind(self, count: int) -> int:
        """Rewind the group and return the number of messages that are delivered again."""
        first = max(self.log.start, self.committed - count)
        moved = self.committed - first
        self.again += [*range(first, self.committed), *self.acked]
        self.acked.clear()
        heapify(self.again)
        self.committed = first
        self.announce()
        return moved

    def forget_tail(self) -> None:
        """Adjust to a log that has become shorter.

        Held messages are delivered again, as after the failure of a server.
        """
        end = self.log.end
        self.lend(None if self.lease is None else self.lease.member)
        self.committed, self.next = min(self.committed, end), min(self.next, end)
        self.acked = {position for position in self.acked if position < end}
        self.again = [position for position in self.again if position < end]
        heapify(self.again)

    def lend(self, member: "Member | None") -> None:
        """Assign the partition to another member, with the messages not yet acknowledged."""
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
        """Wake the member that holds the partition if there are new messages."""
        if self.lease is not None and self.has_more:
            member = self.lease.member
            if not self.ready:
                self.ready = True
                member.ready.append(self)
            member.wake()


class Lease:
    """Assignment of a partition to a member.

    A delivery is outdated if its lease is not the current one of the cursor.
    """

    __slots__ = ("cursor", "member")

    def __init__(self, cursor: Cursor, member: "Member") -> None:
        self.cursor = cursor
        self.member = member


class Member:
    """Subscription within a group. ``wake`` is called when there may be messages to fetch."""

    __slots__ = ("group", "max_unacked", "ready", "topics", "unacked", "wake")

    def __init__(
        self, group: "Group", topics: Collection[str], max_unacked: int, wake: Callable[[], None]
    ) -> None:
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
        """Return up to ``limit`` messages within the window of unacknowledged ones."""
        limit = min(limit, self.max_unacked - self.unacked)
        found: list[Delivery] = []
        ready = self.ready
        while ready and len(found) < limit:
            cursor = ready.popleft()
            cursor.take(limit - len(found), found)
            cursor.ready = cursor.has_more
            if cursor.ready:
                # The cursor moves to the end, so that a full partition does not delay the others.
                ready.append(cursor)
        self.unacked += len(found)
        return found


class Group:
    """Members that share partitions."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.cursors: dict[str, list[Cursor]] = {}

    def cursor(self, log: PartitionLog, first: int) -> Cursor:
        """Create a cursor of this group."""
        return Cursor(log, first)

    def member(self, topics: Collection[str], max_unacked: int, wake: Callable[[], None]) -> Member:
        """Create a member of this group that has not joined yet."""
        return Member(self, topics, max_unacked, wake)

    def rebalance(self) -> None:
        """Distribute the partitions of each topic evenly, moving as few as possible."""
        for topic, cursors in self.cursors.items():
            shares: dict[Member, int] = {
                member: 0 for member in self.members if topic in member.topics
            }
            fair, over = divmod(len(cursors), len(shares)) if shares else (0, 0)
            homeless: list[Cursor] = []
            for cursor in cursors:
                holder = cursor.lease.member if cursor.lease is not None else None
                if (
                    holder not in shares
                    or shares[holder] > fair
                    or (shares[holder] == fair and not over)
                ):
                    homeless.append(cursor)
                    continue
                # If the partitions cannot be distributed evenly, some members have one more.
                over -= shares[holder] == fair
                shares[holder] += 1
            for cursor in homeless:
                poorest = min(shares, key=shares.__getitem__) if shares else None
                if poorest is not None:
                    shares[poorest] += 1
                cursor.lend(poorest)


class SharedCursor(Cursor):
    """Position of a group in a partition from which all members fetch, as competing consumers."""

    __slots__ = ("group", "holders")

    def __init__(self, group: "SharedGroup", log: PartitionLog, first: int) -> None:
        super().__init__(log, first)
        self.group = group
        self.holders: dict[int, Lease] = {}
        """Lease of each message that is held."""

    def take_for(self, member: Member, limit: int, into: list[Delivery]) -> None:
        """Append up to ``limit`` deliveries for one member."""
        known = len(into)
        lease = self.lease = Lease(self, member)
        self.take(limit, into)
        self.lease = None
        self.holders |= {delivery.position: lease for delivery in into[known:]}

    def is_held(self, position: int, lease: Lease) -> bool:
        return self.holders.get(position) is lease

    def give_back(self, position: int) -> None:
        del self.holders[position]
        super().give_back(position)

    def ack(self, position: int) -> None:
        del self.holders[position]
        super().ack(position)

    def lend(self, member: Member | None) -> None:
        """Take all held messages back from their members."""
        self.take_back(self.group.members)

    def take_back(self, members: Collection[Member]) -> None:
        """Take back the messages held by these members."""
        for position, lease in list(self.holders.items()):
            if lease.member in members:
                lease.member.unacked -= 1
                self.give_back(position)

    def announce(self) -> None:
        if self.has_more:
            for member in self.group.members:
                member.wake()


class SharedMember(Member):
    """Subscription within a group whose members compete for each message."""

    __slots__ = ()

    @property
    def _cursors(self) -> Iterable[SharedCursor]:
        return (
            cursor
            for topic in self.topics
            for cursor in self.group.cursors[topic]
            if isinstance(cursor, SharedCursor)
        )

    @property
    def has_more(self) -> bool:
        return self.unacked < self.max_unacked and any(cursor.has_more for cursor in self._cursors)

    def fetch(self, limit: int) -> list[Delivery]:
        limit = min(limit, self.max_unacked - self.unacked)
        found: list[Delivery] = []
        for cursor in self._cursors:
            cursor.take_for(self, limit - len(found), found)
        self.unacked += len(found)
        return found


class SharedGroup(Group):
    """Members that compete for each message, without affinity by key."""

    def cursor(self, log: PartitionLog, first: int) -> Cursor:
        return SharedCursor(self, log, first)

    def member(self, topics: Collection[str], max_unacked: int, wake: Callable[[], None]) -> Member:
        return SharedMember(self, topics, max_unacked, wake)

    def rebalance(self) -> None:
        """Take back the messages held by members that have left."""
        for cursors in self.cursors.values():
            for cursor in cursors:
                if isinstance(cursor, SharedCursor):
                    cursor.take_back(
                        {lease.member for lease in cursor.holders.values()}.difference(self.members)
                    )
