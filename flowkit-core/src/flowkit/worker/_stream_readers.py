"""Flow control of streams: producers wait for readers that are too far behind.

Readers send their positions to every worker, and repeat them while they run. A producer waits only
for readers that it hears, and after its first batch for those that should begin soon. So neither a
lost message, nor the crash of a reader, nor one that cannot begin holds it up for long.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from flowkit.messages import StreamRead
from flowkit.protocols import Clock, Stream
from flowkit.worker._artifacts import StreamHints

REPEAT_SEC = 1.0
UNCHANGED = 3
"""Number of repetitions of which one sends the positions that have not changed."""
FORGET_SEC = 10.0
"""Time after its last message at which a reader counts as one that does not run."""
EXPECT_SEC = 2.0
"""Time in which a reader should begin that needs only the first batch of its producer."""


# ---------------------------------------------------------------- of readers


class Reading:
    """Position of one reader in streams whose nodes have not ended."""

    def __init__(self, hints: StreamHints, reader: str, max_ahead: int) -> None:
        self.step = max(1, max_ahead // 4)
        """Number of artifacts after which producers learn the position."""
        self._hints = hints
        self._reader = reader
        self._max_ahead = max_ahead
        self._positions: dict[Stream, int] = {}
        self._of_shards: dict[Stream, Sequence[int]] = {}
        self._sent: dict[Stream, int] = {}
        self._repetitions = 0

    def begin(self, streams: Mapping[Stream, Sequence[int]]) -> None:
        self._positions = dict.fromkeys(streams, 0)
        self._of_shards = dict(streams)
        for stream in streams:
            self._send(stream, 0)

    def moved(self, stream: Stream, position: int, of_shards: Sequence[int]) -> None:
        """Note the position up to which the artifacts of a stream are taken, and how many batches
        of each shard these are.
        """
        if stream in self._positions:
            self._positions[stream] = position
            self._of_shards[stream] = of_shards
            if position - self._sent[stream] >= self.step:
                self._send(stream, position)

    def repeat(self) -> None:
        """Send the positions that have changed, and at times all."""
        self._repetitions += 1
        sends_all = self._repetitions % UNCHANGED == 0
        for stream, position in self._positions.items():
            if sends_all or position != self._sent[stream]:
                self._send(stream, position)

    def end(self, ended: Collection[Stream]) -> None:
        """Release the producers, except for streams that have ``ended``."""
        for stream in self._positions.keys() - ended:
            self._send(stream, None)

    def _send(self, stream: Stream, position: int | None) -> None:
        self._sent[stream] = position or 0
        read = StreamRead(
            task_id=stream.task_id,
            node_id=stream.node_id,
            generation=stream.generation,
            reader=self._reader,
            position=position,
            of_shards=tuple(self._of_shards[stream]),
            max_ahead=self._max_ahead,
        )
        self._hints.read(stream, read)


class Readings:
    """The readers of a worker."""

    def __init__(self, hints: StreamHints, clock: Clock) -> None:
        self._hints = hints
        self._clock = clock
        self._active: dict[Reading, None] = {}
        self._filled = asyncio.Event()

    @contextmanager
    def of(
        self,
        reader: str,
        max_ahead: int,
        streams: Mapping[Stream, Sequence[int]],
        ended: Collection[Stream],
    ) -> Iterator[Reading]:
        """Let the producers of these streams know the position of a reader.

        Each stream comes with a zero for each shard of its node. ``ended`` are the streams whose
        nodes have ended, also later.
        """
        reading = Reading(self._hints, reader, max_ahead)
        growing = {stream: zeros for stream, zeros in streams.items() if stream not in ended}
        reading.begin(growing)
        if growing:
            self._active[reading] = None
            self._filled.set()
        try:
            yield reading
        finally:
            self._active.pop(reading, None)
            reading.end(ended)

    async def repeat(self) -> None:
        """Run the loop that repeats the positions."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._active:
                await self._clock.sleep(REPEAT_SEC)
                for reading in self._active:
                    reading.repeat()


# ---------------------------------------------------------------- of producers


class _Reader(NamedTuple):
    position: int
    of_shards: Sequence[int]
    max_ahead: int
    until: float

    def limit(self, shard: int | None) -> tuple[int, int]:
        """Return how many batches of a producer are taken, and how many it may be ahead. Shards
        have equal parts of what their node may be ahead.
        """
        if shard is None or shard >= len(self.of_shards):
            return self.position, self.max_ahead
        return self.of_shards[shard], max(1, self.max_ahead // len(self.of_shards))


class Behind(NamedTuple):
    """A reader that is too far behind."""

    batches: int
    reader: str
    until: float
    """Time by the monotonic clock at which it counts as one that does not run."""


class StreamReaders:
    """The readers that a worker hears, by stream."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._readers: dict[Stream, dict[str, _Reader]] = {}
        self._change = asyncio.Event()
        self._forget_at = 0.0

    def notice(self, read: StreamRead) -> None:
        now = self._clock.monotonic()
        if now >= self._forget_at:
            self._forget(now)
        stream = Stream(read.task_id, read.node_id, read.generation)
        if read.position is None:
            self._readers.get(stream, {}).pop(read.reader, None)
        else:
            reader = _Reader(read.position, read.of_shards, read.max_ahead, now + FORGET_SEC)
            self._readers.setdefault(stream, {})[read.reader] = reader
        self._change.set()
        self._change = asyncio.Event()

    def expect(self, stream: Stream, readers: Mapping[str, int], shards: int) -> None:
        """Count readers that have not sent a position yet as if they had just sent that they have
        taken nothing. Each comes with the number of batches that the producer may be ahead.
        """
        now = self._clock.monotonic()
        if now >= self._forget_at:
            self._forget(now)
        known = self._readers.setdefault(stream, {})
        for name, max_ahead in readers.items():
            known.setdefault(name, _Reader(0, (0,) * shards, max_ahead, now + EXPECT_SEC))

    def _forget(self, now: float) -> None:
        self._forget_at = now + FORGET_SEC
        for stream, readers in list(self._readers.items()):
            kept = {name: reader for name, reader in readers.items() if reader.until > now}
            if kept:
                self._readers[stream] = kept
            else:
                del self._readers[stream]

    def behind(self, stream: Stream, batches: int, shard: int | None = None) -> Behind | None:
        """Return the reader that is furthest behind a producer with so many batches, if the
        producer has to wait for it. The producer may be one ``shard`` of the node.
        """
        readers = self._readers.get(stream)
        if not readers:
            return None
        now = self._clock.monotonic()
        found: list[Behind] = []
        for name, reader in readers.items():
            taken, max_ahead = reader.limit(shard)
            if reader.until > now and batches - taken >= max_ahead:
                found.append(Behind(batches - taken, name, reader.until))
        return max(found, default=None)

    async def wait(self) -> None:
        """Return when any reader has sent its position."""
        await self._change.wait()
