"""Partitions in which a group has acknowledged nothing for long, so that the bus cannot tell what
was lost behind the first message.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flowkit.protocols import Place

STANDSTILL_SEC = 600.0
"""A command is sent again when its partition has stood still for this long, although a later
command of the partition was started.
"""
SILENT_STANDSTILL_SEC = 7200.0
"""The same where no later command was started: all workers may be busy, so that nobody has asked
for messages.
"""


@dataclass(slots=True)
class Standstill:
    """The first position that the group has not acknowledged, and since when it is the first."""

    first: int
    since: float


class Standstills:
    """Watches the partitions of all topics."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Standstill] = {}
        self._started: dict[tuple[str, int], int] = {}
        """The highest position of each partition whose command was started."""

    def note(self, topic: str, outstanding: Mapping[int, tuple[int, int]], now: float) -> None:
        """Take in an answer of the bus."""
        for partition, (first, _) in outstanding.items():
            known = self._known.get((topic, partition))
            if known is None or known.first != first:
                self._known[topic, partition] = Standstill(first, now)
                if known is not None and first < known.first:
                    self._started.pop((topic, partition), None)

    def started(self, topic: str, place: Place) -> None:
        """Note that the command in this place was started."""
        partition = topic, place[0]
        if place[1] > self._started.get(partition, -1):
            self._started[partition] = place[1]

    def patience(self, topic: str, place: Place) -> tuple[float, float] | None:
        """Return since when a message here may be lost, and how long to wait; None if none can
        be.
        """
        known = self._known.get((topic, place[0]))
        if known is None or place[1] <= known.first:
            return None
        later_one_started = self._started.get((topic, place[0]), -1) > place[1]
        return known.since, STANDSTILL_SEC if later_one_started else SILENT_STANDSTILL_SEC

    def stands(self, topic: str, partition: int, now: float) -> bool:
        """Whether a partition stands still at all."""
        known = self._known.get((topic, partition))
        return known is not None and now - known.since >= STANDSTILL_SEC
