"""A source of triggers in memory, for tests."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from flowkit.config import CommonConfig
from flowkit.errors import BusUnavailable, ConfigError
from flowkit.protocols import Delivery, Message

REPEATED = 2
"""Acknowledged events that are delivered again when their reader leaves."""


class MemorySource:
    """A plugin, and the source ``mem://`` that it opens. It has one partition."""

    def __init__(self) -> None:
        self.events: list[Delivery] = []
        self.groups: dict[str, Readers] = {}
        self.away = False
        self.changed = asyncio.Event()

    def flowkit_open_trigger(self, source: str, config: CommonConfig) -> "MemorySource | None":
        if not source.startswith("mem://"):
            return None
        if source == "mem://wrong":
            raise ConfigError(f"{source!r} is wrong; write mem://name")
        return self

    def publish(self, value: bytes, key: str = "", timestamp: float = 0.0) -> None:
        message = Message("orders", value, key, {"h": b"x"})
        self.events.append(Delivery(message, 0, len(self.events), timestamp=timestamp))
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    @asynccontextmanager
    async def subscribe(self, group: str, *, since: float) -> AsyncIterator["Reader"]:
        if self.away:
            raise BusUnavailable("the source is away")
        readers = self.groups.setdefault(group, Readers())
        reader = Reader(self, readers, since)
        self.joined(readers, reader)
        try:
            yield reader
        finally:
            self.left(readers, reader)

    def joined(self, readers: "Readers", reader: "Reader") -> None:
        readers.present += 1

    def left(self, readers: "Readers", reader: "Reader") -> None:
        readers.give_back(reader)
        self.wake()

    async def behind(self, group: str, *, since: float) -> int:
        if self.away:
            raise BusUnavailable("the source is away")
        done = self.groups[group].done if group in self.groups else set()
        return sum(
            one.position not in done and (one.timestamp or 0) >= since for one in self.events
        )


class Readers:
    """Events that the readers of a group have received and acknowledged."""

    def __init__(self) -> None:
        self.present = 0
        self.taken: set[int] = set()
        self.done: set[int] = set()

    def give_back(self, reader: "Reader") -> None:
        """Deliver events again that a reader has not acknowledged, and some that it has."""
        self.present -= 1
        self.taken -= reader.out
        repeated = sorted(self.done)[-REPEATED:]
        self.taken.difference_update(repeated)
        self.done.difference_update(repeated)


class Reader:
    """A reader of a group."""

    def __init__(self, source: MemorySource, readers: Readers, since: float) -> None:
        self._source = source
        self._readers = readers
        self._since = since
        self.out: set[int] = set()

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        while True:
            changed = self._source.changed
            given = [
                one
                for one in self._source.events
                if one.position not in self._readers.taken and (one.timestamp or 0) >= self._since
            ][:max_messages]
            if given:
                positions = {one.position for one in given}
                self._readers.taken |= positions
                self.out |= positions
                return given
            await changed.wait()

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        positions = {one.position for one in deliveries}
        self.out -= positions
        self._readers.done |= positions
