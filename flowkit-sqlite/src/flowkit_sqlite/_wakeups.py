"""Wake-ups of tasks that wait for changes of the file, in this process and in others.

A process that commits a change sends a datagram to the other processes. It contains a short hash of
each channel that the change notified. A lost datagram is covered by polling, and a forged one only
causes a look.
"""

import asyncio
import socket
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from zlib import crc32

HOST = "127.0.0.1"
_LONGEST_DATAGRAM = 65_535


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
        """Take the news of a notification, or wake. Called in the event loop."""
        if news is None or self._deliver is None or not self._deliver(news):
            self.wake()

    def wake(self) -> None:
        """End the current wait, or the next one at once. Called in the event loop."""
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


@dataclass(frozen=True, slots=True)
class Notification:
    """News of a channel for one of its listeners."""

    listener: Listener
    news: Any

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.listener.loop

    def wake(self) -> None:
        """Give the news to the listener. Called in the event loop."""
        self.listener.hear(self.news)


class Listeners:
    """Listeners of all event loops of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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
        with self._lock:
            for channel in channels:
                self._by_channel[channel].add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                for channel in channels:
                    self._by_channel[channel].discard(listener)
                    if not self._by_channel[channel]:
                        del self._by_channel[channel]

    def notifications(self, notified: Iterable[tuple[str, Any]]) -> list[Notification]:
        """Return what the listeners of some channels hear, in order."""
        with self._lock:
            return [
                Notification(listener, news)
                for channel, news in notified
                for listener in self._by_channel.get(channel, ())
            ]

    def of_others(self, hashes: frozenset[int] | None = None) -> set[Listener]:
        """Return the listeners to wake after a change of another process.

        ``hashes`` are those of its channels; they are None if the change is unknown.
        """
        with self._lock:
            # A listener that is woken already reads the file later.
            return {
                listener
                for listeners in self._by_channel.values()
                for listener in listeners
                if not listener.is_woken and listener.is_meant_by(hashes)
            }


def hashes_of(channels: Iterable[str]) -> frozenset[int]:
    """Return short hashes of channels. Equal hashes of two channels cause a needless look."""
    encoded = (channel.encode("utf-8", "surrogatepass") for channel in channels)
    return frozenset(crc32(each) & 0xFFFF for each in encoded)


class Doorbell:
    """Socket that receives the datagrams of other processes, read by a thread of its own."""

    def __init__(self, on_ring: Callable[[frozenset[int]], None], *, host: str = HOST) -> None:
        """Bind the socket to an address of this machine, and start the thread.

        Raises:
            OSError: no socket can be bound.
        """
        self._on_ring = on_ring
        self._host = host
        self._closing = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, 0))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(
            target=self._run, name="flowkit-sqlite-wakeups", daemon=True
        )
        self._thread.start()

    def ring(self, ports: Iterable[int], channels: Iterable[str] = ()) -> None:
        """Send a datagram about channels to each port."""
        content = array("H", hashes_of(channels)).tobytes()
        for port in ports:
            with suppress(OSError):
                self._socket.sendto(content, (self._host, port))

    def close(self) -> None:
        """End the thread and close the socket."""
        self._closing = True
        self.ring([self.port])
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._closing:
            # Windows reports that an earlier datagram did not arrive as an error of the next call.
            with suppress(OSError):
                content = self._socket.recv(_LONGEST_DATAGRAM)
                if not self._closing:
                    self._on_ring(frozenset(array("H", content[: len(content) // 2 * 2])))
