"""Reports of runs: each run writes its own, a buffer collects them, and one sender sends them."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from pydantic_core import to_json

from flowkit._runtime.retries import patiently
from flowkit._text.redaction import writable
from flowkit.errors import MessageError, MessageTooLarge, PayloadError
from flowkit.messages import (
    BatchesRetried,
    BatchRetries,
    BatchStored,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RunNode,
    WorkerReport,
    decode,
    encode,
    headers_of,
)
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._handlers import json_value

logger = logging.getLogger(__name__)

PROGRESS_EVERY_SEC = 0.2
_NEVER_SENT = (MessageTooLarge, PayloadError)
_REFUSED_RESULTS = {
    MessageTooLarge: ("result_too_large", True),
    PayloadError: ("result_not_encoded", False),  # the codec may succeed another time
}
"""Reason code of a result that cannot be sent, and whether the failure is permanent."""

End = NodeSucceeded | NodeFailed | NodeStopped | NodeReleased
Origin = tuple[Subscription, Delivery]


def heartbeat_every_sec(command: RunNode) -> float | None:
    """Return the time between the heartbeats that the worker sends while the handler cannot."""
    return None if command.heartbeat_sec is None else command.heartbeat_sec / 3


class RunReports:
    """Reports of one run that are not sent yet.

    The run writes them and the sender collects them. The deliveries of the run's command are kept
    here too: the sender acknowledges them after the first report is on the bus.
    """

    __slots__ = (
        "_batch_due",
        "_begun",
        "_buffer",
        "_encoded_end",
        "_end",
        "_ends_segment",
        "_held_up_due",
        "_progress_at",
        "_progress_due",
        "_progress_sent_at",
        "_retries_due",
        "_start_due",
        "_started",
        "command",
        "headers",
        "ids",
        "on_bus",
        "on_refused",
        "origins",
        "progress",
        "retries_sent",
        "started_at",
        "trace",
    )

    def __init__(
        self,
        buffer: "ReportBuffer",
        command: RunNode,
        headers: Mapping[str, bytes],
        origin: Origin | None,
    ) -> None:
        """``headers`` are those of the command. It has no ``origin`` if another worker handed it
        over.
        """
        self._buffer = buffer
        self.command = command
        self.ids = {
            "task_id": command.task_id,
            "index": command.index,
            "attempt": command.attempt,
            "token": command.token,
            "worker_id": buffer.worker_id,
        }
        """The fields that identify the attempt in each of its reports."""
        self.origins = [] if origin is None else [origin]
        """Deliveries of the command that are not acknowledged."""
        self.trace = trace_from(headers)
        """The trace of the task, from the headers of the command."""
        self.headers = headers_of(self.trace)
        self.started_at = 0.0
        self.progress: Any = command.progress
        self._started = self._begun = self._ends_segment = False
        self._start_due = self._batch_due = self._progress_due = False
        self._progress_at = 0.0
        self._progress_sent_at: float | None = None
        self._retries_due: BatchRetries | None = None
        self._held_up_due: tuple[str | None, int] | None = None
        self.retries_sent: anyio.Event | None = None
        """Set when the announced retries are on the bus."""
        self._end: End | NodeStarted | None = None
        self._encoded_end: bytes | None = None
        self.on_bus: asyncio.Event | None = None
        """Set when the end is on the bus, if another run waits for that."""
        self.on_refused: Callable[[], None] | None = None
        """Called if another end had to be sent, because the bus refused this one."""

    @property
    def begun(self) -> bool:
        """Whether the run has begun."""
        return self._started

    @property
    def ended(self) -> bool:
        return self._end is not None

    def start(self, now: float, *, is_reported: bool = False) -> None:
        """Report the start of the run, unless the end of the run before it reports that."""
        self.started_at = now
        self._started = True
        if not is_reported:
            self._start_due = True
            self._buffer.add(self)

    def begin(self) -> None:
        """Report that the handler of a node with a rate begins now. The report is sent later, so
        the place of the rate is used up no earlier than that.
        """
        self._begun = self._start_due = True
        self._buffer.add(self)

    def end_segment(self) -> None:
        """Report with the start, or with a second report of it, that the worker begins no other
        node of the segment after this one.
        """
        self._ends_segment = True
        self.repeat_start()

    def repeat_start(self) -> None:
        """Report the start once more.

        A run that has not started or has ended reports that anyway.
        """
        if self._started and self._end is None:
            self._start_due = True
            self._buffer.add(self)

    def batch_stored(self) -> None:
        """Report that a batch is stored."""
        if self._end is None:
            self._batch_due = True
            self._buffer.add(self)

    def held_up(self, reader: str | None, batches: int = 0) -> None:
        """Report that the run waits for a reader that is so far behind, or without one, goes on."""
        self._held_up_due = (reader, batches)
        self._buffer.add(self)

    def progressed(self, progress: Any) -> None:
        """Report progress, from any thread.

        The first report is sent at once; of later ones the newest, at most every
        ``PROGRESS_EVERY_SEC``.
        """
        self._buffer.call_in_loop(self._set_progress, json_value(progress, "the progress"))

    def _set_progress(self, progress: Any) -> None:
        if self._end is not None:
            return
        clock = self._buffer.clock
        self.progress, self._progress_at, self._progress_due = progress, clock.now(), True
        sent_at = self._progress_sent_at
        if sent_at is None or clock.monotonic() - sent_at >= PROGRESS_EVERY_SEC:
            self._buffer.add(self)
        else:
            self._buffer.add_delayed(self)

    async def announce_retries(self, retries: BatchRetries) -> None:
        """Report which batches are retried, and return when the bus has the report.

        So the tries count even if this worker dies during them.
        """
        if self._end is None:
            self._retries_due = retries
            sent = self.retries_sent = self.retries_sent or anyio.Event()
            self._buffer.add(self)
            await sent.wait()

    def end(self, report: End | NodeStarted, encoded: bytes | None = None) -> None:
        """Report the end of the run, or with a NodeStarted that another run has the attempt.

        The first end counts; later ones are ignored, such as that of an abandoned run.
        """
        if self._end is None:
            self._end, self._encoded_end = report, encoded
            self._buffer.add(self)

    def encode(self, report: WorkerReport, *, limit: int) -> bytes:
        """Return the bytes of a report. Those of an end may be known."""
        if report is self._end and self._encoded_end is not None:
            return self._encoded_end
        return encode(report, limit=limit)

    def collect(self) -> list[WorkerReport]:
        """Take the reports that are due, in order.

        A start that was not sent yet is left out if the end contains it.
        """
        reports: list[WorkerReport] = []
        between = self._batch_due or self._progress_due or self._retries_due is not None
        between = between or self._held_up_due is not None
        if self._start_due and (self._end is None or between):
            reports.append(
                NodeStarted(
                    **self.ids,
                    at=self.started_at,
                    begun=self._begun,
                    ends_segment=self._ends_segment,
                )
            )
        if between:
            self._add_due(reports)
        if self._end is not None:
            reports.append(self._end)
        self._start_due = False
        return reports

    def _add_due(self, reports: list[WorkerReport]) -> None:
        clock = self._buffer.clock
        if self._batch_due:
            reports.append(BatchStored(**self.ids, at=clock.now()))
        if self._progress_due:
            self._progress_sent_at = clock.monotonic()
            reports.append(NodeProgressed(**self.ids, progress=self.progress, at=self._progress_at))
        if self._retries_due is not None:
            reports.append(BatchesRetried(**self.ids, retries=self._retries_due, at=clock.now()))
        if self._held_up_due is not None:
            reader, batches = self._held_up_due
            now = clock.now()
            reports.append(NodeHeldUp(**self.ids, reader=reader, batches=batches, at=now))
        self._batch_due = self._progress_due = False
        self._retries_due = self._held_up_due = None


class ReportBuffer:
    """Runs with reports that are due, and single messages. The sender empties it."""

    def __init__(self, *, topic: str, worker_id: str, clock: Clock) -> None:
        self.topic = topic
        self.worker_id = worker_id
        self.clock = clock
        self._due: dict[RunReports, None] = {}
        self._delayed: dict[RunReports, None] = {}
        self._messages: list[Message] = []
        self.filled = asyncio.Event()
        """Set while there is something to send."""
        self._delayed_filled = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def empty(self) -> bool:
        return not self._due and not self._messages

    def add(self, reports: RunReports) -> None:
        """Send the reports of this run soon."""
        self._due[reports] = None
        self.filled.set()

    def add_delayed(self, reports: RunReports) -> None:
        """Send the progress of this run after the pause between two reports of progress."""
        self._delayed[reports] = None
        self._delayed_filled.set()

    def add_message(self, message: Message) -> None:
        """Send a message again that was sent before."""
        self._messages.append(message)
        self.filled.set()

    def add_report(self, report: WorkerReport, headers: Mapping[str, bytes]) -> None:
        """Send a report about an attempt that has no run here."""
        self.add_message(Message(self.topic, encode(report), report.task_id, headers))

    def call_in_loop(self, call: Callable[[Any], None], value: Any) -> None:
        """Call at once, or, from another thread, as soon as the event loop is free."""
        if threading.get_ident() == self._thread:
            call(value)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, value)

    def take(self) -> tuple[list[RunReports], list[Message]]:
        """Take all that is to be sent."""
        self.filled.clear()
        due, self._due = self._due, {}
        messages, self._messages = self._messages, []
        return list(due), messages

    async def release_delayed(self) -> None:
        """Run the loop that sends delayed progress."""
        while True:
            await self._delayed_filled.wait()
            self._delayed_filled.clear()
            await self.clock.sleep(PROGRESS_EVERY_SEC)
            delayed, self._delayed = self._delayed, {}
            for reports in delayed:
                if not reports.ended:
                    self.add(reports)


@dataclass(frozen=True, slots=True)
class _Sending:
    """Messages of one publish call, and the runs whose reports they are."""

    messages: list[Message]
    refused: list[Message]
    """Those of the messages in whose place others were sent."""
    runs: list[RunReports]
    retries_sent: list[anyio.Event]
    """Events of the announced retries among the messages."""
    ends: dict[RunReports, Message | None]
    """Ended runs. An end that is remembered for repetition has its message here."""


class ReportSender:
    """Sends the reports of all runs. Reports that come up during a call go into the next call."""

    def __init__(
        self,
        *,
        bus: Bus,
        buffer: ReportBuffer,
        on_end: Callable[[RunNode, Message | None], None],
        clock: Clock,
    ) -> None:
        """``on_end`` is called for each run whose end is on the bus."""
        self._bus = bus
        self._buffer = buffer
        self._on_end = on_end
        self._clock = clock
        self._sending: _Sending | None = None
        self._idle = asyncio.Event()

    async def send_reports(self) -> None:
        """Run the loop that sends."""
        while True:
            if self._sending is None:
                await self._buffer.filled.wait()
                self._sending = self._prepare(*self._buffer.take())
            # If this loop breaks and is restarted, the collected reports are sent then.
            await self._send(self._sending)
            self._sending = None
            if self._buffer.empty:
                self._idle.set()

    async def flush(self) -> None:
        """Return when nothing is left to send."""
        while not self._buffer.empty or self._sending is not None:
            self._idle.clear()
            await self._idle.wait()

    def _prepare(self, runs: list[RunReports], repeated: list[Message]) -> _Sending:
        messages: list[Message] = []
        retries_sent: list[anyio.Event] = []
        ends: dict[RunReports, Message | None] = {}
        for run in runs:
            message = None
            reports = run.collect()
            for report in reports:
                message = self._message(report, run)
                if message is not None:
                    messages.append(message)
            if run.ended:
                # Another run has the attempt: this worker does not answer for it.
                ends[run] = None if isinstance(reports[-1], NodeStarted) else message
            if run.retries_sent is not None:
                retries_sent.append(run.retries_sent)
                run.retries_sent = None
        return _Sending([*messages, *repeated], [], runs, retries_sent, ends)

    def _message(self, report: WorkerReport, run: RunReports) -> Message | None:
        """Return the message with a report, or with its substitute if it cannot be sent."""
        try:
            value = run.encode(report, limit=self._bus.max_message_bytes)
        except MessageError as error:
            substitute = _substitute(report, error, self._bus.max_message_bytes)
            if substitute is None:
                logger.warning(
                    "A report of progress of task %s was dropped: it is too large", report.task_id
                )
                return None
            value = encode(substitute)
        # The next node of a segment begins when it knows that this is stored.
        durable = run.on_bus is not None
        return Message(self._buffer.topic, value, report.task_id, run.headers, durable=durable)

    async def _send(self, sending: _Sending) -> None:
        await patiently(
            partial(self._publish, sending.messages, sending.refused),
            clock=self._clock,
            what="publish reports",
        )
        for event in sending.retries_sent:
            event.set()
        origins: list[Origin] = []
        for run in sending.runs:
            origins += run.origins
            run.origins.clear()
        for run, end in sending.ends.items():
            if run.on_refused is not None and any(one is end for one in sending.refused):
                run.on_refused()
            run.on_refused = None  # no circle of references is left
            if run.on_bus is not None:
                run.on_bus.set()
            self._on_end(run.command, end)
        await acknowledge_all(origins)

    async def _publish(self, messages: Sequence[Message], refused: list[Message]) -> None:
        """Publish these messages. One that the bus refuses is replaced by a smaller report, and
        added to ``refused``.
        """
        try:
            await self._bus.publish(messages)
        except _NEVER_SENT as error:
            if len(messages) == 1:
                refused.append(messages[0])
                await self._publish_substitute(messages[0], error)
                return
            # Limits of the bus include headers, and a codec may fail on one value. Sent one by one,
            # only that message is affected.
            for message in messages:
                await self._publish([message], refused)

    async def _publish_substitute(
        self, message: Message, error: MessageTooLarge | PayloadError
    ) -> None:
        most = self._bus.max_message_bytes
        substitute = _substitute(decode(message.value, limit=most), error, most)
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


def _substitute(
    report: WorkerReport, error: MessageError | PayloadError, most: int
) -> WorkerReport | None:
    """Return a smaller report in place of one that cannot be sent; None for progress. ``most`` is
    the limit of a message in bytes.
    """
    ids = {
        name: getattr(report, name)
        for name in ("task_id", "index", "attempt", "token", "worker_id", "at")
    }
    if isinstance(report, NodeSucceeded):
        reason, permanent = _REFUSED_RESULTS.get(type(error), ("bad_result", True))
        size = len(to_json(report.result)) if isinstance(error, MessageTooLarge) else 0
        text = (
            f"the result has {size} bytes as JSON, too many for a message of at most {most} bytes;"
            " store it in an artifact or elsewhere, and return its place"
            if size > most
            else f"the result cannot be sent: {writable(str(error))}"
        )
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


def by_subscription(origins: Iterable[Origin]) -> dict[Subscription, list[Delivery]]:
    """Return the deliveries of each subscription."""
    deliveries: dict[Subscription, list[Delivery]] = {}
    for subscription, delivery in origins:
        deliveries.setdefault(subscription, []).append(delivery)
    return deliveries


async def acknowledge_all(origins: Iterable[Origin]) -> None:
    """Acknowledge the commands of several subscriptions."""
    for subscription, deliveries in by_subscription(origins).items():
        await acknowledge(subscription, deliveries)


async def acknowledge(subscription: Subscription, deliveries: list[Delivery]) -> None:
    """Acknowledge commands. If that fails they are delivered again, and recognized."""
    try:
        await subscription.ack(deliveries)
    except Exception as error:
        logger.info(
            "%d commands could not be acknowledged: %s",
            len(deliveries),
            error,
            extra={"action": "ack_failed"},
        )
