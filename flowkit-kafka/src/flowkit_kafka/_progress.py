"""Progress of a subscription in one partition: the messages that came and were acknowledged."""

from collections import deque


class Progress:
    """Fetched, delivered and acknowledged positions of a partition during one assignment.

    ``over`` is set when the assignment ends. Acknowledgements that arrive later have no effect, so
    they never move the offset of the partition's next owner.
    """

    __slots__ = ("_acked", "_open", "committed", "out", "over", "partition", "reached", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.over = False
        self.out: set[int] = set()
        """Delivered positions that are neither acknowledged nor released."""
        self.committed: int | None = None
        """Highest position known to be committed in this assignment; None until a message came."""
        self._open: deque[int] = deque()
        self._acked: set[int] = set()
        self.reached = 0
        """Position after the last message that came."""

    def came(self, position: int) -> None:
        """Record a fetched message.

        Positions increase, with gaps in a compacted topic.
        """
        if self.committed is None:
            self.committed = position
        self._open.append(position)
        self.reached = position + 1

    def is_open(self, position: int) -> bool:
        """Return whether this position came and was not acknowledged."""
        return bool(self._open) and position >= self._open[0] and position not in self._acked

    def acknowledge(self, position: int) -> None:
        """Mark a position as done; unknown and acknowledged positions are ignored."""
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
        """Return the position before which all is acknowledged, or None if it is committed."""
        if self.committed is None:
            return None
        done = self._open[0] if self._open else self.reached
        return done if done > self.committed else None
