"""Control messages of a worker: cancellations, questions about attempts, streams, waiting runs."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.retries import patiently
from flowkit.errors import DecodeError
from flowkit.messages import (
    ADDRESSEE,
    AskRun,
    CancelRun,
    EndSegments,
    NodeFailed,
    RequestRuns,
    RunNode,
    RunsWaiting,
    StreamMoved,
    StreamRead,
    decode,
    headers_of,
)
from flowkit.protocols import Bus, Clock, Delivery
from flowkit.tracing import trace_from
from flowkit.worker._artifacts import StreamWatches
from flowkit.worker._commands import Attempts
from flowkit.worker._offers import Offers, Requests
from flowkit.worker._reports import ReportBuffer
from flowkit.worker._stream_readers import StreamReaders

MAX_MESSAGES = 1000
"""Control messages that are received in one call."""


class ControlInbox:
    """The control topic, which every worker reads."""

    def __init__(
        self,
        *,
        bus: Bus,
        topic: str,
        worker_id: str,
        attempts: Attempts,
        offers: Offers,
        requests: Requests,
        watches: StreamWatches,
        readers: StreamReaders,
        buffer: ReportBuffer,
        parking: Parking,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._worker_id = worker_id
        self._addressee = worker_id.encode()
        self._attempts = attempts
        self._offers = offers
        self._requests = requests
        self._watches = watches
        self._readers = readers
        self._buffer = buffer
        self._parking = parking
        self._clock = clock
        self._unusable: list[tuple[Delivery, str]] = []
        self._unusable_signal = asyncio.Event()
        self.ready = anyio.Event()

    async def listen(self) -> None:
        """Run the loop that reads the topic.

        It awaits nothing between two calls of the bus: a cancel never waits for the store.
        """
        async with self._bus.subscribe([self._topic], group=None) as subscription:
            self.ready.set()
            self._requests.ask_all()
            receive = partial(subscription.receive, max_messages=MAX_MESSAGES)
            while True:
                deliveries = await patiently(
                    receive, clock=self._clock, what="receive from the bus"
                )
                self._handle(deliveries)

    async def park_unusable(self) -> None:
        """Run the loop that stores unusable control messages as dead letters.

        Every worker gets such a message and stores it under the same id, so the store has one dead
        letter. The dead-letter topic would get one from each worker, and gets none.
        """
        while True:
            await self._unusable_signal.wait()
            self._unusable_signal.clear()
            unusable, self._unusable = self._unusable, []
            await self._parking.keep(unusable)

    def _handle(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            # Decoding the commands for other workers would cost too much.
            if delivery.message.headers.get(ADDRESSEE, self._addressee) != self._addressee:
                continue
            try:
                self._handle_one(decode(delivery.message.value), delivery)
            except DecodeError as error:
                self._unusable.append((delivery, str(error)))
                self._unusable_signal.set()

    def _handle_one(self, message: Any, delivery: Delivery) -> None:
        if isinstance(message, StreamMoved):
            self._watches.notice(message)
        elif isinstance(message, StreamRead):
            self._readers.notice(message)
        elif isinstance(message, CancelRun):
            self._attempts.cancel(message)
        elif isinstance(message, RunsWaiting):
            self._requests.offered(message)
        elif isinstance(message, RequestRuns):
            self._offers.request(message)
        elif isinstance(message, RunNode) and ADDRESSEE in delivery.message.headers:
            self._requests.accept(message, delivery.message.headers)
        elif isinstance(message, EndSegments):
            self._attempts.end_segments(message.task_id)
        elif not isinstance(message, AskRun):
            raise DecodeError(f"a {message.kind} is not for the control topic")
        elif message.worker_id == self._worker_id:
            self._answer(message, delivery)

    def _answer(self, question: AskRun, delivery: Delivery) -> None:
        """Report the state of an attempt that this worker started.

        An attempt that is unknown here ended without a report.
        """
        key = (question.task_id, question.token)
        if self._attempts.repeat_start(key) or self._attempts.repeat_end(key):
            return
        now = self._clock.now()
        lost = NodeFailed(
            task_id=question.task_id,
            index=question.index,
            attempt=question.attempt,
            token=question.token,
            worker_id=self._worker_id,
            started_at=now,
            at=now,
            reason_code="worker_lost",
            error=(
                f"worker {self._worker_id!r} does not know this attempt any more: the worker"
                " was restarted, or its report was lost"
            ),
        )
        self._buffer.add_report(lost, headers_of(trace_from(delivery.message.headers)))
