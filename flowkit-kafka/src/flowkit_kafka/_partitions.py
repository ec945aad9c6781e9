"""Which partition a message goes to, and how far each partition of a subscription is done."""

from collections import deque
from zlib import crc32


def key_bytes(key: str) -> bytes:
    """A key as it travels. A key that came as something else than UTF-8 goes back as the bytes it
    came as.
    """
    return key.encode("utf-8", "surrogateescape")


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key. Ours, so that every client and version of the driver agrees."""
    return crc32(key) % partitions


class Progress:
    """What of one partition came, was given out and was acknowledged, in one assignment.

    When the group is shared out anew, ``over`` is set: whatever still refers to this object has no
    effect any more, so that a late acknowledgement never moves the offset of somebody else.
    """

    __slots__ = ("_acked", "_open", "committed", "out", "over", "partition", "reached", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.over = False
        self.out: set[int] = set()
        """Positions given out and neither acknowledged nor released."""
        self.committed: int | None = None
        """The highest position known to be committed in this assignment, None before anything
        came.
        """
        self._open: deque[int] = deque()
        self._acked: set[int] = set()
        self.reached = 0
        """The position behind the last message that came."""

    def came(self, position: int) -> None:
        """A message was fetched. Positions grow, with gaps where a topic was compacted."""
        if self.committed is None:
            self.committed = position
        self._open.append(position)
        self.reached = position + 1

    def is_open(self, position: int) -> bool:
        """Whether this position came and was not acknowledged."""
        return bool(self._open) and position >= self._open[0] and position not in self._acked

    def acknowledge(self, position: int) -> None:
        if not self.is_open(position):
            return
        self.out.discard(position)
        if position != self._open[0]:
            self._acked.add(position)
            return
        self._open.popleft()
        while self._open and self._open[0] in self._acked:
            self._acked.remove(self._open.popleft())

    def to_commit(self) -> int | None:
        """The position before which everything is acknowledged, if that is more than was
        committed.
        """
        if self.committed is None:
            return None
        done = self._open[0] if self._open else self.reached
        return done if done > self.committed else None
