"""Index of keys by time."""

from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

K = TypeVar("K", int, str)


class TimeIndex(Generic[K]):
    """Keys with times, ordered by time.

    Setting and clearing leave obsolete entries in a heap. They are removed when they are reached or
    make up most of the heap, so both operations are cheap for any number of keys.
    """

    _SLACK = 64

    def __init__(self) -> None:
        self._times: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: K, time: float | None) -> None:
        """Set the time of ``key``, or remove it with None."""
        if time is None:
            self._times.pop(key, None)
        elif self._times.get(key) != time:
            self._times[key] = time
            heappush(self._heap, (time, key))
        if len(self._heap) > 2 * len(self._times) + self._SLACK:
            self._heap = [(time, key) for key, time in self._times.items()]
            heapify(self._heap)

    def first(self, limit: int, *, until: float = inf) -> list[tuple[float, K]]:
        """Return up to ``limit`` keys with times at or before ``until``, in order of time."""
        heap, times = self._heap, self._times
        found: list[tuple[float, K]] = []
        while heap and len(found) < limit and heap[0][0] <= until:
            entry = heappop(heap)
            if times.get(entry[1]) == entry[0] and (not found or found[-1] != entry):
                found.append(entry)
        for entry in found:
            heappush(heap, entry)
        return found
