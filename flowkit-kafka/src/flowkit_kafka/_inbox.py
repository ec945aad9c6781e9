"""What a subscription holds between the consumer that fills it and the caller who empties it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from flowkit.protocols import Delivery, Message
from flowkit_kafka._partitions import Progress

_NO_HEADERS: Mapping[str, bytes] = {}


class Inbox:
    """Messages that came and wait to be given out, and how far each partition is done. No I/O;
    never awaits but for its events.
    """

    def __init__(self, *, max_unacked: int | None, capacity: int) -> None:
        """``max_unacked`` None: nothing is acknowledged here, as in a broadcast."""
        self._max_unacked = max_unacked
        self._capacity = capacity
        self._queue: deque[tuple[Progress, Any]] = deque()
        self._returned: list[tuple[int, int, Progress, Delivery]] = []
        self._order = count()
        self._progress: dict[TopicPartition, Progress] = {}
        self._replaced: list[Progress] = []
        """Of partitions that were deleted and created again while messages of them were held
        here.
        """
        self._unacked = 0
        self.ready = asyncio.Event()
        """Set while a message may be given out."""
        self.has_room = asyncio.Event()
        """Set while more may be fetched."""
        self.has_room.set()

    @property
    def room(self) -> int:
        """How many more messages may be fetched."""
        return max(0, self._capacity - len(self._queue))

    def put(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        """Take what the consumer fetched."""
        tracked = self._max_unacked is not None
        for partition, records in fetched.items():
            progress = self._progress.get(partition)
            if (
                progress is not None
                and tracked
                and records
                and records[0].offset < progress.reached
            ):
                self._replaced.append(progress)
                progress = None
            if progress is None:
                progress = self._progress[partition] = Progress(
                    partition.topic, partition.partition
                )
            for record in records:
                if tracked:
                    progress.came(record.offset)
                self._queue.append((progress, record))
        self._tell()

    def take(self, limit: int) -> list[Delivery]:
        """Up to ``limit`` messages, as many as may be given out now."""
        if self._max_unacked is not None:
            limit = min(limit, self._max_unacked - self._unacked)
        given: list[Delivery] = []
        while self._returned and len(given) < limit:
            *_, progress, delivery = heappop(self._returned)
            # Somebody may have acknowledged what was released.
            if self._max_unacked is None or progress.is_open(delivery.position):
                given.append(delivery)
        while self._queue and len(given) < limit:
            progress, record = self._queue.popleft()
            given.append(_delivery(progress, record))
        if self._max_unacked is not None:
            for delivery in given:
                delivery.handle.out.add(delivery.position)
            self._unacked += len(given)
        self._tell()
        return given

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        if self._max_unacked is None:
            return
        for delivery in deliveries:
            progress: Progress = delivery.handle
            if not progress.over:
                self._unacked -= delivery.position in progress.out
                progress.acknowledge(delivery.position)
        self._tell()

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Take these back and give them out again, before what came later in their partition."""
        for delivery in deliveries:
            progress: Progress = delivery.handle
            if progress.over:
                continue
            if self._max_unacked is not None:
                if delivery.position not in progress.out:
                    continue
                progress.out.remove(delivery.position)
                self._unacked -= 1
            heappush(self._returned, (delivery.position, next(self._order), progress, delivery))
        self._tell()

    def live(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those that are still ours: neither acknowledged nor of an assignment that is over."""
        if self._max_unacked is None:
            return list(deliveries)
        return [
            delivery
            for delivery in deliveries
            if not delivery.handle.over and delivery.handle.is_open(delivery.position)
        ]

    def to_commit(self) -> dict[TopicPartition, int]:
        """Positions to commit, of the partitions where there is something to say."""
        positions = (
            (partition, progress.to_commit()) for partition, progress in self._progress.items()
        )
        return {partition: position for partition, position in positions if position is not None}

    def committed(self, positions: Mapping[TopicPartition, int]) -> None:
        for partition, position in positions.items():
            progress = self._progress.get(partition)
            if progress is not None and progress.committed is not None:
                progress.committed = max(progress.committed, position)

    def forget(self) -> None:
        """The assignment is over: whatever was not committed will come again, here or elsewhere."""
        for progress in (*self._progress.values(), *self._replaced):
            progress.over = True
        self._progress.clear()
        self._replaced.clear()
        self._queue.clear()
        self._returned.clear()
        self._unacked = 0
        self._tell()

    def _tell(self) -> None:
        full = self._max_unacked is not None and self._unacked >= self._max_unacked
        if (self._queue or self._returned) and not full:
            self.ready.set()
        else:
            self.ready.clear()
        if len(self._queue) < self._capacity:
            self.has_room.set()
        else:
            self.has_room.clear()


def _delivery(progress: Progress, record: ConsumerRecord[Any, Any]) -> Delivery:
    key: bytes | None = record.key
    message = Message(
        progress.topic,
        record.value or b"",
        "" if key is None else key.decode("utf-8", "surrogateescape"),
        {name: value or b"" for name, value in record.headers} if record.headers else _NO_HEADERS,
    )
    return Delivery(message, progress.partition, record.offset, progress)
