"""Messages of a worker: reports out, commands and control messages in."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.deadlines import Signal, patiently, within
from flowkit._text.redaction import writable
from flowkit.errors import DecodeError, MessageError, MessageTooLarge, PayloadError
from flowkit.messages import (
    AskRun,
    CancelRun,
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeSucceeded,
    RunNode,
    StreamMoved,
    WorkerReport,
    decode,
    encode,
    headers_of,
)
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._artifacts import StreamWatches
from flowkit.worker._attempts import Attempts
from flowkit.worker._functions import Make
from flowkit.worker._reports import DueReports, ReportBuffer, RunReports, acknowledge
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

_NEVER_SENT = (MessageTooLarge, PayloadError)
_REFUSED_RESULTS = {
    MessageTooLarge: ("result_too_large", True),
    PayloadError: ("result_not_encoded", False),  # the codec may succeed another time
}
"""Reason code of a result that cannot be sent, and whether the failure is permanent."""
LOOK_AHEAD = 8
"""Commands taken beyond the free slots, so that the most urgent of them starts first."""
HOLD_SEC = 0.1
"""Time after which commands that wait for a slot are released to other workers."""


@dataclass(frozen=True, slots=True)
class _Sending:
    """Messages of one publish call, and the reports that are confirmed with it."""

    messages: list[Message]
    due: list[DueReports]
    ends: dict[RunReports, Message | None]
    """Ended runs. An end that is remembered for repetition has its message here."""


class ReportSender:
    """Sends the reports of all runs. Reports that come up during a call go into the next call."""

    def __init__(self, *, bus: Bus, buffer: ReportBuffer, attempts: Attempts, clock: Clock) -> None:
        self._bus = bus
        self._buffer = buffer
        self._attempts = attempts
        self._clock = clock
        self._sending: _Sending | None = None
        self._idle = anyio.Event()

    async def send_reports(self) -> None:
        """Run the loop that sends."""
        while True:
            if self._sending is None:
                self._sending = self._prepare(*await self._buffer.take())
            # If this loop breaks and is restarted, the collected reports are sent then.
            await self._send(self._sending)
            self._sending = None
            if self._buffer.empty:
                self._idle.set()

    async def flush(self) -> None:
        """Return when nothing is left to send."""
        while not self._buffer.empty or self._sending is not None:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _prepare(self, runs: list[RunReports], repeated: list[Message]) -> _Sending:
        messages: list[Message] = []
        due = [run.collect() for run in runs]
        ends: dict[RunReports, Message | None] = {}
        for item in due:
            for report in item.reports:
                self._add_message(messages, item.run, report)
            if item.end is not None:
                message = self._add_message(messages, item.run, item.end)
                # Another run has the attempt: this worker does not answer for it.
                ends[item.run] = None if isinstance(item.end, NodeStarted) else message
        return _Sending([*messages, *repeated], due, ends)

    def _add_message(
        self, messages: list[Message], run: RunReports, report: WorkerReport
    ) -> Message | None:
        value = self._encoded(report)
        if value is None:
            return None
        message = self._buffer.message(value, report.task_id, run.headers)
        messages.append(message)
        return message

    async def _send(self, sending: _Sending) -> None:
        messages = sending.messages
        await patiently(lambda: self._publish(messages), clock=self._clock, what="publish reports")
        acks: dict[Subscription, list[Delivery]] = {}
        for item in sending.due:
            for subscription, delivery in item.run.origins:
                acks.setdefault(subscription, []).append(delivery)
            item.run.origins.clear()
            if item.retries_sent is not None:
                item.retries_sent.set()
        for run, end in sending.ends.items():
            self._attempts.close(run.command, end)
        for subscription, deliveries in acks.items():
            await acknowledge(subscription, deliveries)

    async def _publish(self, messages: Sequence[Message]) -> None:
        """Publish these messages. One that the bus refuses is replaced by a smaller report."""
        try:
            await self._bus.publish(messages)
        except _NEVER_SENT as error:
            if len(messages) == 1:
                await self._publish_substitute(messages[0], error)
                return
            # Limits of the bus include headers, and a codec may fail on one value. Sent one by one,
            # only that message is affected.
            for message in messages:
                await self._publish([message])

    async def _publish_substitute(
        self, message: Message, error: MessageTooLarge | PayloadError
    ) -> None:
        substitute = _substitute(decode(message.value, limit=self._bus.max_message_bytes), error)
        if substitute is not None:
            try:
                await self._bus.publish([replace(message, value=encode(substitute))])
                return
            except _NEVER_SENT as again:
                error = again
        logger.error(
            "A report of task %s cannot be sent and is dropped: %s",
            message.key,
            error,
            extra={"action": "report_refused"},
        )

    def _encoded(self, report: WorkerReport) -> bytes | None:
        """Return the bytes of a report, or of its substitute if it cannot be sent."""
        try:
            return encode(report, limit=self._bus.max_message_bytes)
        except MessageError as error:
            substitute = _substitute(report, error)
        if substitute is None:
            logger.warning(
                "A report of progress of task %s was dropped: it is too large", report.task_id
            )
            return None
        return encode(substitute)


def _substitute(report: WorkerReport, error: MessageError | PayloadError) -> WorkerReport | None:
    """Return a smaller report in place of one that cannot be sent; None for progress."""
    ids = {
        name: getattr(report, name)
        for name in ("task_id", "index", "attempt", "token", "worker_id", "at")
    }
    if isinstance(report, NodeSucceeded):
        reason, permanent = _REFUSED_RESULTS.get(type(error), ("bad_result", True))
        text = f"the result cannot be sent: {writable(str(error))}"
        return NodeFailed(
            **ids, started_at=report.started_at, reason_code=reason, permanent=permanent, error=text
        )
    if isinstance(report, NodeFailed):
        text = (
            "the error cannot be sent"
            if isinstance(error, PayloadError)
            else writable(report.error)
        )
        return report.model_copy(update={"metrics": {}, "error": text})
    return NodeReleased(**ids, retries=report.retries) if isinstance(report, NodeReleased) else None


class CommandInbox:
    """The commands of the worker's roles."""

    def __init__(
        self,
        *,
        bus: Bus,
        topics: Sequence[str],
        group: str,
        max_concurrency: int,
        served: Mapping[str, Make],
        attempts: Attempts,
        slots: Slots,
        sender: ReportSender,
        parking: Parking,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._group = group
        # Twice the slots: the next commands are taken while the last reports are being sent.
        self._max_unacked = 2 * max_concurrency + LOOK_AHEAD
        self._served = served
        self._attempts = attempts
        self._slots = slots
        self._sender = sender
        self._parking = parking
        self._clock = clock
        self._taking: anyio.CancelScope | None = None
        self._stopping = False
        self.ready = anyio.Event()

    def stop(self) -> None:
        """Take no more commands."""
        self._stopping = True
        if self._taking is not None:
            self._taking.cancel()

    async def listen(self) -> None:
        """Run the loop that takes commands, until :meth:`stop`.

        It closes the subscription when all commands are acknowledged or released.
        """
        if self._stopping:
            return
        async with self._bus.subscribe(
            self._topics, group=self._group, max_unacked=self._max_unacked
        ) as subscription:
            self.ready.set()
            while not self._stopping:
                await self._take_some(subscription)
            await self._attempts.hand_over_waiting()
            await self._sender.flush()

    async def _take_some(self, subscription: Subscription) -> None:
        if self._slots.excess and not await within(
            HOLD_SEC, self._wait_until_all_have_slots, clock=self._clock
        ):
            await self._attempts.hand_over_waiting()
        deliveries: Sequence[Delivery] = ()
        with anyio.CancelScope() as self._taking:
            if self._stopping:
                return
            await self._slots.wait_until(lambda slots: slots.free > 0)
            deliveries = await receive(
                subscription, self._slots.free + LOOK_AHEAD, clock=self._clock
            )
        self._taking = None
        await self._accept(subscription, deliveries)

    async def _wait_until_all_have_slots(self) -> None:
        await self._slots.wait_until(lambda slots: slots.excess == 0)

    async def _accept(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        """Start new attempts, acknowledge known ones, and park unusable messages."""
        attempts = self._attempts
        known: list[Delivery] = []
        unusable: list[tuple[Delivery, str]] = []
        for delivery in deliveries:
            try:
                command, make = self._decoded(delivery)
            except DecodeError as error:
                unusable.append((delivery, str(error)))
                continue
            key, origin = (command.task_id, command.token), (subscription, delivery)
            if attempts.is_cancelled(key) or attempts.repeat_end(key):
                known.append(delivery)
            elif not attempts.repeat_start(key, origin):
                attempts.start(command, make, origin)
        if known:
            await acknowledge(subscription, known)
        kept = await self._parking.keep(unusable)
        for delivery, reason in unusable:
            reject = partial(self._parking.reject, subscription, delivery, reason, kept=kept)
            await patiently(reject, clock=self._clock, what="park a message")

    def _decoded(self, delivery: Delivery) -> tuple[RunNode, Make]:
        command = decode(delivery.message.value)
        if not isinstance(command, RunNode):
            raise DecodeError(f"a {type(command).__name__} is not a command")
        make = self._served.get(command.role)
        if make is None:
            raise DecodeError(f"this worker does not serve role {command.role!r}")
        return command, make


class ControlInbox:
    """The control topic, which every worker reads."""

    def __init__(
        self,
        *,
        bus: Bus,
        topic: str,
        worker_id: str,
        attempts: Attempts,
        watches: StreamWatches,
        buffer: ReportBuffer,
        parking: Parking,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._worker_id = worker_id
        self._attempts = attempts
        self._watches = watches
        self._buffer = buffer
        self._parking = parking
        self._clock = clock
        self._unusable: list[tuple[Delivery, str]] = []
        self._unusable_signal = Signal()
        self.ready = anyio.Event()

    async def listen(self) -> None:
        """Run the loop that reads the topic.

        It awaits nothing between two calls of the bus: a cancel never waits for the store.
        """
        async with self._bus.subscribe([self._topic], group=None) as subscription:
            self.ready.set()
            while True:
                self._handle(await receive(subscription, 1000, clock=self._clock))

    async def park_unusable(self) -> None:
        """Run the loop that stores unusable control messages as dead letters.

        Every worker gets such a message and stores it under the same id, so the store has one dead
        letter. The dead-letter topic would get one from each worker, and gets none.
        """
        while True:
            await self._unusable_signal.wait()
            unusable, self._unusable = self._unusable, []
            await self._parking.keep(unusable)

    def _handle(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            try:
                self._handle_one(decode(delivery.message.value), delivery)
            except DecodeError as error:
                self._unusable.append((delivery, str(error)))
                self._unusable_signal.set()

    def _handle_one(self, message: Any, delivery: Delivery) -> None:
        if isinstance(message, StreamMoved):
            self._watches.notice(message)
        elif isinstance(message, CancelRun):
            self._attempts.cancel(message)
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


async def receive(
    subscription: Subscription, max_messages: int, *, clock: Clock
) -> Sequence[Delivery]:
    """Receive messages, and retry while the bus is unavailable."""
    return await patiently(
        lambda: subscription.receive(max_messages=max_messages),
        clock=clock,
        what="receive from the bus",
    )
