"""Inbox of a subscription: a reader fills it, the caller empties it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from itertools import count

from flowkit.errors import FlowKitError
from flowkit.protocols import Delivery, Message
from flowkit_sqlite._fetching import Row
from flowkit_sqlite._messages import decode_headers
from flowkit_sqlite._progress import Change, Partition, Progress


class Inbox:
    """Messages that wait for delivery, and the progress of each partition.

    It does no I/O.
    """

    def __init__(self, *, max_unacked: int | None, capacity: int) -> None:
        """Create an empty inbox; ``max_unacked`` is None for broadcasts, which have no acks."""
        self._max_unacked = max_unacked
        self._capacity = capacity
        self._queue: deque[Delivery] = deque()
        self._returned: list[tuple[int, int, Delivery]] = []
        self._order = count()
        self._unacked = 0
        self._failure: FlowKitError | None = None
        self.progress: dict[Partition, Progress] = {}
        self.ready = asyncio.Event()
        """Set while a message can be delivered, or an error raised."""

    @property
    def room(self) -> int:
        """Number of messages that may still be fetched, or 0 until half of the inbox is free."""
        return self._capacity - len(self._queue) if len(self._queue) <= self._capacity // 2 else 0

    # ---------------------------------------------------------------- for the reader

    def assign(self, firsts: Mapping[Partition, int]) -> None:
        """Replace the assignment. Messages of partitions that are not in it any more are dropped.

        A partition that is new begins at its first position.
        """
        before, self.progress = self.progress, {}
        for partition, first in firsts.items():
            self.progress[partition] = (
                before.pop(partition) if partition in before else Progress(partition, first)
            )
        for progress in before.values():
            progress.over = True
            self._unacked -= len(progress.out)
        if before:
            self._queue = deque(each for each in self._queue if not each.handle.over)
            self._update()

    def put(self, progress: Progress, rows: Iterable[Row]) -> None:
        """Add messages of a partition, in order."""
        partition = progress.partition
        for position, key, headers, value in rows:
            if self._max_unacked is not None:
                progress.came(position)
            message = Message(partition.topic, value, key, decode_headers(headers))
            self._queue.append(Delivery(message, partition.number, position, progress))
        self._update()

    def fail(self, error: FlowKitError) -> None:
        """Let the caller's next wait raise an error."""
        self._failure = error
        self._update()

    def changes(self) -> list[Change]:
        """Return the acknowledgements that are not stored yet."""
        found = (progress.change() for progress in self.progress.values())
        return [change for change in found if change is not None]

    # ---------------------------------------------------------------- for the caller

    def take(self, limit: int) -> list[Delivery]:
        """Return up to ``limit`` messages, as many as can be delivered now.

        Raises:
            FlowKitError: there is none, and reading failed since the last call.
        """
        if self._max_unacked is not None:
            limit = min(limit, self._max_unacked - self._unacked)
        given: list[Delivery] = []
        while self._returned and len(given) < limit:
            *_, released = heappop(self._returned)
            progress: Progress = released.handle
            # A released message may have been acknowledged since, or gone to another member.
            if not progress.over and (
                self._max_unacked is None or progress.is_open(released.position)
            ):
                given.append(released)
        while self._queue and len(given) < limit:
            given.append(self._queue.popleft())
        if self._max_unacked is not None:
            for each in given:
                each.handle.out.add(each.position)
            self._unacked += len(given)
        failure, self._failure = self._failure, None
        self._update()
        if failure is not None and not given:
            raise failure
        return given

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Mark these as done; those of an assignment that has ended are ignored."""
        for each in deliveries:
            progress: Progress = each.handle
            if self._max_unacked is not None and not progress.over:
                self._unacked -= each.position in progress.out
                progress.acknowledge(each.position)
        if self._queue or self._returned:
            self._update()

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Take these back, to deliver them again before later messages of their partition."""
        for each in deliveries:
            progress: Progress = each.handle
            if self._max_unacked is not None:
                if progress.over or each.position not in progress.out:
                    continue
                progress.out.remove(each.position)
                self._unacked -= 1
            heappush(self._returned, (each.position, next(self._order), each))
        self._update()

    def live(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Return those that are not acknowledged and belong to the current assignment."""
        return [
            each
            for each in deliveries
            if self._max_unacked is None
            or (not each.handle.over and each.handle.is_open(each.position))
        ]

    def _update(self) -> None:
        full = self._max_unacked is not None and self._unacked >= self._max_unacked
        if self._failure is not None or ((self._queue or self._returned) and not full):
            self.ready.set()
        else:
            self.ready.clear()
