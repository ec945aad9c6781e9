"""Inbox of a subscription: a consumer fills it, the caller empties it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from flowkit.protocols import Delivery
from flowkit_kafka._messages import delivery
from flowkit_kafka._progress import Progress


class Inbox:
    """Fetched messages that wait for delivery, and the progress of each partition.

    It does no I/O.
    """

    def __init__(self, *, max_unacked: int | None, capacity: int) -> None:
        """Create an empty inbox; ``max_unacked`` is None for broadcasts, which have no acks."""
        self._max_unacked = max_unacked
        self._capacity = capacity
        self._queue: deque[tuple[Progress, Any]] = deque()
        self._returned: list[tuple[int, int, Progress, Delivery]] = []
        self._order = count()
        self._progress: dict[TopicPartition, Progress] = {}
        self._replaced: list[Progress] = []
        """Progress of partitions that were deleted and created again during this assignment."""
        self._unacked = 0
        self.ready = asyncio.Event()
        """Set while a message can be delivered."""
        self.has_room = asyncio.Event()
        """Set while more messages may be fetched."""
        self.has_room.set()

    @property
    def room(self) -> int:
        """Number of messages that may still be fetched."""
        return max(0, self._capacity - len(self._queue))

    def put(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """Add the messages that the consumer fetched."""
        tracked = self._max_unacked is not None
        for partition, records in fetched.items():
            progress = self._progress_of(partition, records)
            for record in records:
                if tracked:
                    progress.came(record.offset)
                self._queue.append((progress, record))
        self._update_events()

    def _progress_of(
        self, partition: TopicPartition, records: Sequence[ConsumerRecord[Any, Any]]
    ) -> Progress:
        progress = self._progress.get(partition)
        if progress is not None:
            tracked = self._max_unacked is not None
            if not (tracked and records and records[0].offset < progress.reached):
                return progress
            # Offsets that start again belong to a partition that was deleted and created again.
            self._replaced.append(progress)
        progress = self._progress[partition] = Progress(partition.topic, partition.partition)
        return progress

    def take(self, limit: int) -> list[Delivery]:
        """Return up to ``limit`` messages, as many as can be delivered now."""
        if self._max_unacked is not None:
            limit = min(limit, self._max_unacked - self._unacked)
        given: list[Delivery] = []
        while self._returned and len(given) < limit:
            *_, progress, released = heappop(self._returned)
            # A released message may have been acknowledged since.
            if self._max_unacked is None or progress.is_open(released.position):
                given.append(released)
        while self._queue and len(given) < limit:
            progress, record = self._queue.popleft()
            given.append(delivery(progress, record))
        if self._max_unacked is not None:
            for each in given:
                each.handle.out.add(each.position)
            self._unacked += len(given)
        self._update_events()
        return given

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Mark these as done; those of an assignment that has ended are ignored."""
        if self._max_unacked is None:
            return
        for each in deliveries:
            progress: Progress = each.handle
            if not progress.over:
                self._unacked -= each.position in progress.out
                progress.acknowledge(each.position)
        self._update_events()

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Take these back, to deliver them again before later messages of their partition."""
        for each in deliveries:
            progress: Progress = each.handle
            if progress.over:
                continue
            if self._max_unacked is not None:
                if each.position not in progress.out:
                    continue
                progress.out.remove(each.position)
                self._unacked -= 1
            heappush(self._returned, (each.position, next(self._order), progress, each))
        self._update_events()

    def live(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Return those that are not acknowledged and belong to the current assignment."""
        if self._max_unacked is None:
            return list(deliveries)
        return [
            each
            for each in deliveries
            if not each.handle.over and each.handle.is_open(each.position)
        ]

    def to_commit(self) -> dict[TopicPartition, int]:
        """Return the positions to commit, of the partitions where they have changed."""
        positions = (
            (partition, progress.to_commit()) for partition, progress in self._progress.items()
        )
        return {partition: position for partition, position in positions if position is not None}

    def committed(self, positions: Mapping[TopicPartition, int]) -> None:
        """Record a successful commit."""
        for partition, position in positions.items():
            progress = self._progress.get(partition)
            if progress is not None and progress.committed is not None:
                progress.committed = max(progress.committed, position)

    def forget(self) -> None:
        """End the assignment: messages whose offsets are not committed will be delivered again."""
        for progress in (*self._progress.values(), *self._replaced):
            progress.over = True
        self._progress.clear()
        self._replaced.clear()
        self._queue.clear()
        self._returned.clear()
        self._unacked = 0
        self._update_events()

    def _update_events(self) -> None:
        full = self._max_unacked is not None and self._unacked >= self._max_unacked
        if (self._queue or self._returned) and not full:
            self.ready.set()
        else:
            self.ready.clear()
        if len(self._queue) < self._capacity:
            self.has_room.set()
        else:
            self.has_room.clear()
