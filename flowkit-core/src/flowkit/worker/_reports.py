"""Reports of runs, buffered until the sender takes them."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from flowkit._runtime.deadlines import Signal
from flowkit.messages import (
    BatchesRetried,
    BatchRetries,
    BatchStored,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
    RunNode,
    WorkerReport,
    encode,
    headers_of,
)
from flowkit.protocols import Clock, Delivery, Message, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._handlers import json_value

logger = logging.getLogger(__name__)

PROGRESS_EVERY_SEC = 0.2
End = NodeSucceeded | NodeFailed | NodeStopped | NodeReleased
Origin = tuple[Subscription, Delivery]


class RunReports:
    """Reports of one run that are not sent yet.

    The run writes them and the sender collects them. The deliveries of the run's command are kept
    here too: the sender acknowledges them after the first report is on the bus.
    """

    __slots__ = (
        "_batch_due",
        "_buffer",
        "_end",
        "_progress_at",
        "_progress_due",
        "_progress_sent_at",
        "_retries_due",
        "_retries_sent",
        "_start_due",
        "_started",
        "command",
        "headers",
        "origins",
        "progress",
        "started_at",
        "trace",
    )

    def __init__(self, buffer: "ReportBuffer", command: RunNode, origin: Origin) -> None:
        self._buffer = buffer
        self.command = command
        self.origins = [origin]
        """Deliveries of the command that are not acknowledged."""
        self.trace = trace_from(origin[1].message.headers)
        """The trace of the task, from the headers of the command."""
        self.headers = headers_of(self.trace)
        self.started_at = 0.0
        self.progress: Any = command.progress
        self._started = False
        self._start_due = self._batch_due = self._progress_due = False
        self._progress_at = 0.0
        self._progress_sent_at: float | None = None
        self._retries_due: BatchRetries | None = None
        self._retries_sent: anyio.Event | None = None
        self._end: End | NodeStarted | None = None

    @property
    def ended(self) -> bool:
        return self._end is not None

    def ids(self) -> dict[str, Any]:
        """Return the fields that identify the attempt in each of its reports."""
        command = self.command
        return {
            "task_id": command.task_id,
            "index": command.index,
            "attempt": command.attempt,
            "token": command.token,
            "worker_id": self._buffer.worker_id,
        }

    def start(self, now: float) -> None:
        """Report the start of the run."""
        self.started_at = now
        self._started = self._start_due = True
        self._buffer.add(self)

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
            sent = self._retries_sent = anyio.Event()
            self._buffer.add(self)
            await sent.wait()

    def end(self, report: End | NodeStarted) -> None:
        """Report the end of the run, or with a NodeStarted that another run has the attempt.

        The first end counts; later ones are ignored, such as that of an abandoned run.
        """
        if self._end is None:
            self._end = report
            self._buffer.add(self)

    def collect(self) -> "DueReports":
        """Take the reports that are due, in order.

        A start that was not sent yet is left out if the end contains it.
        """
        between = self._batch_due or self._progress_due or self._retries_due is not None
        start = self._start_due and (self._end is None or between)
        reports = self._before_end(start=start) if start or between else []
        due = DueReports(self, reports, self._end, self._retries_sent)
        self._start_due = self._batch_due = self._progress_due = False
        self._retries_due = self._retries_sent = None
        return due

    def _before_end(self, *, start: bool) -> list[WorkerReport]:
        ids, clock = self.ids(), self._buffer.clock
        reports: list[WorkerReport] = []
        if start:
            reports.append(NodeStarted(**ids, at=self.started_at))
        if self._batch_due:
            reports.append(BatchStored(**ids, at=clock.now()))
        if self._progress_due:
            self._progress_sent_at = clock.monotonic()
            reports.append(NodeProgressed(**ids, progress=self.progress, at=self._progress_at))
        if self._retries_due is not None:
            reports.append(BatchesRetried(**ids, retries=self._retries_due, at=clock.now()))
        return reports


@dataclass(slots=True)
class DueReports:
    """Reports of one run that are sent together."""

    run: RunReports
    reports: list[WorkerReport]
    """The reports before the end."""
    end: End | NodeStarted | None
    retries_sent: anyio.Event | None
    """Set when the announced retries are on the bus."""


class ReportBuffer:
    """Runs with reports that are due, and single messages. The sender empties it."""

    def __init__(self, *, topic: str, worker_id: str, clock: Clock) -> None:
        self.worker_id = worker_id
        self.clock = clock
        self._topic = topic
        self._due: dict[RunReports, None] = {}
        self._delayed: dict[RunReports, None] = {}
        self._messages: list[Message] = []
        self._filled = Signal()
        self._delayed_filled = Signal()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def empty(self) -> bool:
        return not self._due and not self._messages

    def add(self, reports: RunReports) -> None:
        """Send the reports of this run soon."""
        self._due[reports] = None
        self._filled.set()

    def add_delayed(self, reports: RunReports) -> None:
        """Send the progress of this run after the pause between two reports of progress."""
        self._delayed[reports] = None
        self._delayed_filled.set()

    def add_message(self, message: Message) -> None:
        """Send a message again that was sent before."""
        self._messages.append(message)
        self._filled.set()

    def add_report(self, report: WorkerReport, headers: Mapping[str, bytes]) -> None:
        """Send a report about an attempt that has no run here."""
        self.add_message(self.message(encode(report), report.task_id, headers))

    def message(self, value: bytes, task_id: str, headers: Mapping[str, bytes]) -> Message:
        return Message(self._topic, value, task_id, headers)

    def call_in_loop(self, call: Callable[[Any], None], value: Any) -> None:
        """Call at once, or, from another thread, as soon as the event loop is free."""
        if threading.get_ident() == self._thread:
            call(value)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, value)

    async def take(self) -> tuple[list[RunReports], list[Message]]:
        """Wait until there is something to send, and take all of it."""
        await self._filled.wait()
        due, self._due = self._due, {}
        messages, self._messages = self._messages, []
        return list(due), messages

    async def release_delayed(self) -> None:
        """Run the loop that sends delayed progress."""
        while True:
            await self._delayed_filled.wait()
            await self.clock.sleep(PROGRESS_EVERY_SEC)
            delayed, self._delayed = self._delayed, {}
            for reports in delayed:
                if not reports.ended:
                    self.add(reports)


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
