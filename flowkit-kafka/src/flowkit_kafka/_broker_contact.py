"""Contact of a consumer with the brokers: the time of the last answer and the last error."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer

from flowkit.errors import BusUnavailable
from flowkit_kafka._errors import translated


class BrokerContact:
    """Time of the last answer from the brokers, and the error since then."""

    def __init__(self, topics: Sequence[str], patience_sec: float) -> None:
        self._topics = topics
        self._patience_sec = patience_sec
        self._clock = asyncio.get_running_loop().time
        self._last_answer = self._begun = self._clock()
        self._last_fetch_stamp = 0
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Start the silence of a new consumer at zero."""
        self._begun = self._clock()

    def answered(self) -> None:
        """Record an answer from the brokers."""
        self._last_answer = self._clock()
        self.error = None

    def fetched(self, consumer: AIOKafkaConsumer) -> bool:
        """Return whether the brokers answered a fetch since the last call; it may be empty."""
        stamps = map(consumer.last_poll_timestamp, consumer.assignment())
        stamp = max((stamp for stamp in stamps if stamp), default=0)
        changed = stamp != self._last_fetch_stamp
        self._last_fetch_stamp = stamp
        return changed

    @property
    def lifetime_sec(self) -> float:
        """Seconds since the current consumer began."""
        return self._clock() - self._begun

    @property
    def silence_sec(self) -> float:
        """Seconds without an answer in the lifetime of the current consumer."""
        return self._clock() - max(self._last_answer, self._begun)

    def check(self) -> None:
        """Raise an error if the brokers have been silent for longer than the patience.

        Raises:
            BusUnavailable: they have been, over all consumers.
        """
        silence = self._clock() - self._last_answer
        if silence < self._patience_sec:
            return
        doing = f"receiving from {', '.join(self._topics)}, for {silence:.0f} s"
        if self.error is not None:
            raise translated(self.error, doing)
        raise BusUnavailable(f"{doing}: the brokers do not answer")
