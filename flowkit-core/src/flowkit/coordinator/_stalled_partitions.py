"""Partitions in which a group has acknowledged nothing for long.

The bus cannot say then which messages after the first one were lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flowkit.protocols import Place

STANDSTILL_SEC = 600.0
"""A command is sent again when its partition has stood still for this long, although a later
command of the partition was started.
"""
SILENT_STANDSTILL_SEC = 7200.0
"""The same if no later command was started: all workers may be busy and not ask for messages."""


@dataclass(slots=True)
class Standstill:
    """The first position that a group has not acknowledged, and since when it is the first."""

    first: int
    since: float


class Standstills:
    """Watches the partitions of all topics."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Standstill] = {}
        self._started: dict[tuple[str, int], int] = {}
        """The highest position of each partition whose command was started."""

    def note(self, topic: str, outstanding: Mapping[int, tuple[int, int]], now: float) -> None:
        """Record an answer of the bus."""
        for partition, (first, _) in outstanding.items():
            known = self._known.get((topic, partition))
            if known is None or known.first != first:
                self._known[topic, partition] = Standstill(first, now)
                if known is not None and first < known.first:
                    self._started.pop((topic, partition), None)

    def started(self, topic: str, place: Place) -> None:
        """Record that the command at this place was started."""
        partition = topic, place[0]
        if place[1] > self._started.get(partition, -1):
            self._started[partition] = place[1]

    def patience(self, topic: str, place: Place) -> tuple[float, float] | None:
        """Return since when the message at this place may be lost, and how long to wait; None if it
        cannot be lost.
        """
        known = self._known.get((topic, place[0]))
        if known is None or place[1] <= known.first:
            return None
        later_one_started = self._started.get((topic, place[0]), -1) > place[1]
        return known.since, STANDSTILL_SEC if later_one_started else SILENT_STANDSTILL_SEC

    def stands(self, topic: str, partition: int, now: float) -> bool:
        """Return whether a partition stands still."""
        known = self._known.get((topic, partition))
        return known is not None and now - known.since >= STANDSTILL_SEC
