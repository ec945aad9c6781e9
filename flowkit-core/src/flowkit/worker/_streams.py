"""Hints about streams of artifacts: sent by the writer, received by the readers."""

import logging
from collections.abc import Collection, Mapping

from flowkit._runtime.deadlines import Signal
from flowkit._runtime.outage_notices import notices_of
from flowkit.errors import FlowKitError
from flowkit.messages import StreamMoved, encode
from flowkit.protocols import Bus, Clock, Message, Stream

logger = logging.getLogger(__name__)

HINT_EVERY_SEC = 0.02


class StreamHints:
    """Notifies the readers of a stream of new artifacts.

    The first hint is sent at once, later ones at most every ``HINT_EVERY_SEC``.
    """

    def __init__(self, *, bus: Bus, topic: str, clock: Clock) -> None:
        self._bus = bus
        self._topic = topic
        self._clock = clock
        self._moved: dict[Stream, Mapping[str, bytes]] = {}
        self._signal = Signal()

    def moved(self, stream: Stream, headers: Mapping[str, bytes]) -> None:
        self._moved[stream] = headers
        self._signal.set()

    async def send_hints(self) -> None:
        """Run the loop that sends. The reader of a lost hint polls instead."""
        notices = notices_of(self._clock)
        while True:
            await self._signal.wait()
            moved, self._moved = self._moved, {}
            try:
                await self._bus.publish(
                    [self._hint(stream, headers) for stream, headers in moved.items()]
                )
            except FlowKitError as error:
                notices.trouble(
                    logger,
                    "hints",
                    "Hints about streams cannot be sent",
                    error,
                    action="hints_lost",
                    level=logging.INFO,
                )
            else:
                notices.over(logger, "hints")
            await self._clock.sleep(HINT_EVERY_SEC)

    def _hint(self, stream: Stream, headers: Mapping[str, bytes]) -> Message:
        hint = StreamMoved(
            task_id=stream.task_id, node_id=stream.node_id, generation=stream.generation
        )
        return Message(self._topic, encode(hint), stream.task_id, headers)


class StreamWatch:
    """The streams that one reader follows: which moved and which ended since its last read."""

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = frozenset(streams)
        self.moved: set[Stream] = set()
        self.ended: set[Stream] = set()
        self._signal = Signal()

    def notice(self, stream: Stream, *, ended: bool) -> None:
        self.moved.add(stream)
        if ended:
            self.ended.add(stream)
        self._signal.set()

    async def wait(self, streams: Collection[Stream]) -> None:
        """Return when one of these streams has moved. Late hints of other streams are ignored."""
        while self.moved.isdisjoint(streams):
            await self._signal.wait()


class StreamWatches:
    """The readers of a worker, by stream."""

    def __init__(self) -> None:
        self._watches: dict[Stream, dict[StreamWatch, None]] = {}

    def add(self, watch: StreamWatch) -> None:
        for stream in watch.streams:
            self._watches.setdefault(stream, {})[watch] = None

    def remove(self, watch: StreamWatch) -> None:
        for stream in watch.streams:
            watches = self._watches[stream]
            watches.pop(watch, None)
            if not watches:
                del self._watches[stream]

    def notice(self, hint: StreamMoved) -> None:
        stream = Stream(hint.task_id, hint.node_id, hint.generation)
        for watch in self._watches.get(stream, ()):
            watch.notice(stream, ended=hint.ended)
