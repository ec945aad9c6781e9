"""Keys by time, with the earliest at hand."""

from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

K = TypeVar("K", int, str)


class TimeIndex(Generic[K]):
    """Which keys have a time, and which of them come first.

    Setting and clearing leave dead entries in a heap, which are dropped when they are met or have
    become the greater part of it. So both cost next to nothing, however many keys there are.
    """

    _SLACK = 64

    def __init__(self) -> None:
        self._times: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: K, time: float | None) -> None:
        """Give ``key`` this time in the place of its last one; None: it has none."""
        if time is None:
            self._times.pop(key, None)
        elif self._times.get(key) != time:
            self._times[key] = time
            heappush(self._heap, (time, key))
        if len(self._heap) > 2 * len(self._times) + self._SLACK:
            self._heap = [(time, key) for key, time in self._times.items()]
            heapify(self._heap)

    def first(self, limit: int, *, until: float = inf) -> list[tuple[float, K]]:
        """Up to ``limit`` keys with times at or before ``until``, the earliest first."""
        heap, times = self._heap, self._times
        found: list[tuple[float, K]] = []
        while heap and len(found) < limit and heap[0][0] <= until:
            entry = heappop(heap)
            if times.get(entry[1]) == entry[0] and (not found or found[-1] != entry):
                found.append(entry)
        for entry in found:
            heappush(heap, entry)
        return found
