"""Progress of a subscription in one partition: the messages that came and were acknowledged."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic, and its assignment to this member.

    ``progress_id`` and ``epoch`` are 0 for a subscriber without a group.
    """

    partition_id: int
    topic: str
    number: int
    progress_id: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """Acknowledgements to store: all messages below ``first``, and single ones above it."""

    progress: "Progress"
    first: int
    above: Sequence[int]


class Progress:
    """Fetched, delivered and acknowledged positions of a partition during one assignment.

    ``over`` is set when the assignment ends. Acknowledgements that arrive later have no effect.
    """

    __slots__ = ("_acked", "_new", "_open", "cursor", "out", "over", "partition", "stored_first")

    def __init__(self, partition: Partition, first: int) -> None:
        self.partition = partition
        self.over = False
        self.cursor = first
        """Position from which the next messages are fetched."""
        self.stored_first = first
        """Position before which all messages are stored as acknowledged."""
        self.out: set[int] = set()
        """Delivered positions that are neither acknowledged nor released."""
        self._open: deque[int] = deque()
        self._acked: set[int] = set()
        self._new: list[int] = []
        """Acknowledged positions that are not stored yet."""

    @property
    def first(self) -> int:
        """The first position that is not acknowledged."""
        return self._open[0] if self._open else self.cursor

    def came(self, position: int) -> None:
        """Record a fetched message. Positions increase, with gaps where messages were deleted."""
        self._open.append(position)

    def is_open(self, position: int) -> bool:
        """Return whether this position came and was not acknowledged."""
        return bool(self._open) and position >= self._open[0] and position not in self._acked

    def acknowledge(self, position: int) -> None:
        """Mark a position as done; unknown and acknowledged positions are ignored."""
        if not self.is_open(position):
            return
        self.out.discard(position)
        self._new.append(position)
        self._acked.add(position)
        while self._open and self._open[0] in self._acked:
            self._acked.remove(self._open.popleft())

    def change(self) -> Change | None:
        """Return the acknowledgements that are not stored yet, or None if there are none."""
        first = self.first
        above = [position for position in self._new if position > first]
        if first == self.stored_first and not above:
            return None
        return Change(self, first, above)

    def stored(self, change: Change) -> None:
        """Record that a change was stored."""
        self.stored_first = max(self.stored_first, change.first)
        done = set(change.above)
        self._new = [
            position for position in self._new if position > change.first and position not in done
        ]
