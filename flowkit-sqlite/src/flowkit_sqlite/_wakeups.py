"""Wake-ups of tasks that wait for changes of the file, in this process and in others.

A process that commits a change sends a datagram to the other processes. It contains a short hash of
each channel that the change notified. A lost datagram is covered by polling, and a forged one only
causes a look.
"""

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast
from zlib import crc32

HOST = "127.0.0.1"
HASHES_KEPT = 1_000
"""Channels whose hashes are kept."""

Deliver = Callable[[Any], bool]
"""Function that takes the news of a notification; it returns False if the listener must look."""


class Listener:
    """Wait of one task for notifications."""

    def __init__(
        self, *, others: bool, named: Collection[str] | None, deliver: Deliver | None
    ) -> None:
        self.others = others
        self._named = None if named is None else hashes_of(named)
        self.loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_woken(self) -> bool:
        """Whether the next wait returns at once."""
        return self._woken

    def is_meant_by(self, hashes: frozenset[int] | None) -> bool:
        """Return whether a change of another process, None for an unknown one, wakes it."""
        if hashes is None or self._named is None:
            return self.others
        return self.others and not self._named.isdisjoint(hashes)

    def hear(self, news: Any) -> None:
        """Take the news of a notification, or wake."""
        if news is None or self._deliver is None or not self._deliver(news):
            self.wake()

    def wake(self) -> None:
        """End the current wait, or the next one at once."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for a notification since the end of the previous wait; return False at the timeout.

        Listen before you look for the change, so that no change comes between.
        """
        if not self._woken:
            self._waiter = self.loop.create_future()
            timer = None if timeout is None else self.loop.call_later(timeout, self._time_out)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        woken, self._woken = self._woken, False
        return woken

    def _time_out(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Listeners:
    """Listeners of an event loop."""

    def __init__(self) -> None:
        self._by_channel: defaultdict[str, set[Listener]] = defaultdict(set)

    @contextmanager
    def listen(
        self, channels: Collection[str], *, others: bool, named: bool, deliver: Deliver | None
    ) -> Iterator[Listener]:
        """Add a listener to channels while the context is open.

        With ``others``, it is also woken by other processes: with ``named``, only if they notified
        one of its channels.
        """
        listener = Listener(others=others, named=channels if named else None, deliver=deliver)
        for channel in channels:
            self._by_channel[channel].add(listener)
        try:
            yield listener
        finally:
            for channel in channels:
                self._by_channel[channel].discard(listener)
                if not self._by_channel[channel]:
                    del self._by_channel[channel]

    def hear(self, notified: Iterable[tuple[str, Any]]) -> None:
        """Give the news of channels to their listeners, in order."""
        for channel, news in notified:
            for listener in tuple(self._by_channel.get(channel, ())):
                listener.hear(news)

    def of_others(self, hashes: frozenset[int] | None = None) -> set[Listener]:
        """Return the listeners to wake after a change of another process.

        ``hashes`` are those of its channels; they are None if the change is unknown.
        """
        # A listener that is woken already reads the file later.
        return {
            listener
            for listeners in self._by_channel.values()
            for listener in listeners
            if not listener.is_woken and listener.is_meant_by(hashes)
        }


def hashes_of(channels: Iterable[str]) -> frozenset[int]:
    """Return short hashes of channels. Equal hashes of two channels cause a needless look."""
    return frozenset(map(_hash_of, channels))


@lru_cache(HASHES_KEPT)
def _hash_of(channel: str) -> int:
    return crc32(channel.encode("utf-8", "surrogatepass")) & 0xFFFF


OnRing = Callable[[frozenset[int], int], None]
"""Function that takes the hashes of a datagram, and the port that it came from."""


class Doorbell(asyncio.DatagramProtocol):
    """Socket that receives the datagrams of other processes."""

    def __init__(self, on_ring: OnRing, host: str) -> None:
        self._on_ring = on_ring
        self._host = host
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._on_ring(frozenset(array("H", data[: len(data) // 2 * 2])), addr[1])

    def ring(self, ports: Iterable[int], channels: Iterable[str] = ()) -> None:
        """Send a datagram about channels to each port."""
        content = array("H", hashes_of(channels)).tobytes()
        for port in ports:
            if self._transport is not None:
                self._transport.sendto(content, (self._host, port))

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


async def open_doorbell(on_ring: OnRing, host: str) -> Doorbell | None:
    """Return a doorbell at an address of this machine; None if no socket can be bound."""
    loop = asyncio.get_running_loop()
    try:
        _, doorbell = await loop.create_datagram_endpoint(
            lambda: Doorbell(on_ring, host), local_addr=(host, 0)
        )
    except OSError:
        return None
    return doorbell
