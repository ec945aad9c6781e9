"""Outgoing reports: gathered, sent in one go, and the commands they answer acknowledged."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from flowkit._runtime.deadlines import Signal, patiently
from flowkit._text.redaction import writable
from flowkit.errors import MessageError, MessageTooLarge, PayloadError
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
    decode,
    encode,
    headers_of,
)
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._handler_values import json_value

logger = logging.getLogger(__name__)

PROGRESS_EVERY_SEC = 0.2
End = NodeSucceeded | NodeFailed | NodeStopped | NodeReleased
Origin = tuple[Subscription, Delivery]

_NEVER_SENT = (MessageTooLarge, PayloadError)
_REFUSED_RESULTS = {
    MessageTooLarge: ("result_too_large", True),
    PayloadError: ("result_not_encoded", False),
}
"""The reason code of a result that is never sent, and whether that is for good: another time the
codec may be able to.
"""


class RunReports:
    """What one run has to tell, until it is told."""

    __slots__ = (
        "_announced",
        "_batch_due",
        "_begun",
        "_confirming",
        "_end",
        "_progress_at",
        "_progress_due",
        "_reporter",
        "_retries_due",
        "_started_due",
        "_told_at",
        "command",
        "complete",
        "end_message",
        "headers",
        "on_told",
        "origins",
        "progress",
        "started_at",
        "trace",
    )

    def __init__(
        self,
        reporter: "Reporter",
        command: RunNode,
        origin: Origin,
        on_told: Callable[["RunReports"], None],
    ) -> None:
        self._reporter = reporter
        self.command = command
        self.origins = [origin]
        """Deliveries of the command, to be acknowledged when the first report was confirmed."""
        self.trace = trace_from(origin[1].message.headers)
        """The trace of the task, which the command brought."""
        self.headers = headers_of(self.trace)
        self.on_told = on_told
        """Called with this when the end was confirmed."""
        self.complete = False
        """The end is among what was collected."""
        self.started_at = 0.0
        self.progress: Any = command.progress
        self._begun = False
        self._started_due = self._batch_due = self._progress_due = False
        self._progress_at = 0.0
        self._told_at: float | None = None
        self._retries_due: BatchRetries | None = None
        self._announced: anyio.Event | None = None
        self._confirming: anyio.Event | None = None
        self._end: End | NodeStarted | None = None
        self.end_message: Message | None = None
        """The end as it was told."""

    @property
    def ended(self) -> bool:
        return self._end is not None

    @property
    def left(self) -> bool:
        """Another run has this attempt."""
        return isinstance(self._end, NodeStarted)

    def start(self, now: float) -> None:
        self.started_at = now
        self._begun = True
        self._started_due = True
        self._reporter.wake(self)

    def tell_again(self) -> None:
        """Say once more that it runs. Before its beginning and after its end it says nothing: that
        will be told in its turn.
        """
        if self._begun and self._end is None:
            self._started_due = True
            self._reporter.wake(self)

    def batch_stored(self) -> None:
        if self._end is None:
            self._batch_due = True
            self._reporter.wake(self)

    def progressed(self, progress: Any) -> None:
        """Keep the newest; the first goes at once, the others when it is time."""
        progress = json_value(progress, "the progress")
        self._reporter.in_loop(self._keep_progress, progress)

    def _keep_progress(self, progress: Any) -> None:
        if self._end is not None:
            return
        clock = self._reporter.clock
        self.progress, self._progress_at, self._progress_due = progress, clock.now(), True
        if self._told_at is None or clock.monotonic() - self._told_at >= PROGRESS_EVERY_SEC:
            self._reporter.wake(self)
        else:
            self._reporter.wake_later(self)

    async def announce(self, retries: BatchRetries) -> None:
        """Say which batches are tried again, and return when that is on the bus: it is known even
        if this worker dies in the try.
        """
        if self._end is None:
            self._retries_due = retries
            self._announced = anyio.Event()
            self._reporter.wake(self)
            await self._announced.wait()

    def confirmed(self) -> None:
        """What was collected last is on the bus."""
        if self._confirming is not None:
            self._confirming.set()
            self._confirming = None

    def end(self, report: End) -> None:
        """Say how the run ended. The first end counts: of a run that was given up, nothing that
        comes later does.
        """
        if self._end is None:
            self._end = report
            self._reporter.wake(self)

    def leave(self, report: NodeStarted) -> None:
        """Report that another run has this attempt, and nothing more."""
        if self._end is None:
            self._end = report
            self._reporter.wake(self)

    def collect(self, worker_id: str) -> list[WorkerReport]:
        """What is due, in order. A start that was not told yet is left out where the end says it as
        well.
        """
        command, end = self.command, self._end
        ids: dict[str, Any] = {
            "task_id": command.task_id,
            "index": command.index,
            "attempt": command.attempt,
            "token": command.token,
            "worker_id": worker_id,
        }
        due: list[WorkerReport] = []
        between = self._batch_due or self._progress_due or self._retries_due is not None
        if self._started_due and (end is None or between):
            due.append(NodeStarted(**ids, at=self.started_at))
        if self._batch_due:
            due.append(BatchStored(**ids, at=self._reporter.clock.now()))
        if self._progress_due:
            self._told_at = self._reporter.clock.monotonic()
            due.append(NodeProgressed(**ids, progress=self.progress, at=self._progress_at))
        if self._retries_due is not None:
            due.append(
                BatchesRetried(**ids, retries=self._retries_due, at=self._reporter.clock.now())
            )
            self._confirming, self._announced, self._retries_due = self._announced, None, None
        if end is not None:
            due.append(end)
            self.complete = True
        self._started_due = self._batch_due = self._progress_due = False
        return due


class Reporter:
    """Sends the reports of all runs: whatever came up while the last ones were on their way goes
    together.
    """

    def __init__(self, *, bus: Bus, topic: str, worker_id: str, clock: Clock) -> None:
        self.clock = clock
        self._bus = bus
        self._topic = topic
        self._worker_id = worker_id
        self._due: dict[RunReports, None] = {}
        self._later: dict[RunReports, None] = {}
        self._answers: list[Message] = []
        self._signal = Signal()
        self._later_signal = Signal()
        self._quiet = anyio.Event()
        self._sending: tuple[list[RunReports], list[Message]] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def wake(self, reports: RunReports) -> None:
        self._due[reports] = None
        self._signal.set()

    def wake_later(self, reports: RunReports) -> None:
        self._later[reports] = None
        self._later_signal.set()

    def repeat(self, message: Message) -> None:
        """Send once more what was sent."""
        self._answers.append(message)
        self._signal.set()

    def answer(self, report: WorkerReport, headers: Mapping[str, bytes]) -> None:
        """Send a report that is no run's."""
        self.repeat(Message(self._topic, encode(report), report.task_id, headers))

    def in_loop(self, call: Callable[[Any], None], value: Any) -> None:
        """Call at once, or, from another thread, as soon as the event loop is free."""
        if threading.get_ident() == self._thread:
            call(value)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, value)

    async def send_reports(self) -> None:
        """The loop that sends."""
        while True:
            if self._sending is None:
                await self._signal.wait()
                due, self._due = self._due, {}
                answers, self._answers = self._answers, []
                self._sending = list(due), [*self._messages(due), *answers]
            # What was collected stays until it was sent, also if this loop should die meanwhile.
            await self._send(*self._sending)
            self._sending = None
            if not self._due and not self._answers:
                self._quiet.set()

    async def send_late_progress(self) -> None:
        """The loop that sends progress which came too soon after the last."""
        while True:
            await self._later_signal.wait()
            await self.clock.sleep(PROGRESS_EVERY_SEC)
            later, self._later = self._later, {}
            for reports in later:
                if not reports.ended:
                    self.wake(reports)

    async def flush(self) -> None:
        """Return when there is nothing left to send."""
        while self._due or self._answers or self._sending:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    def _messages(self, due: Iterable[RunReports]) -> list[Message]:
        messages: list[Message] = []
        for reports in due:
            for report in reports.collect(self._worker_id):
                value = self._encoded(report)
                if value is not None:
                    messages.append(Message(self._topic, value, report.task_id, reports.headers))
            if reports.complete and not reports.left:
                reports.end_message = messages[-1]
        return messages

    async def _send(self, due: list[RunReports], messages: list[Message]) -> None:
        await patiently(lambda: self._publish(messages), clock=self.clock, what="publish reports")
        acks: dict[Subscription, list[Delivery]] = {}
        for reports in due:
            for subscription, delivery in reports.origins:
                acks.setdefault(subscription, []).append(delivery)
            reports.origins.clear()
            reports.confirmed()
            if reports.complete:
                reports.on_told(reports)
        for subscription, deliveries in acks.items():
            await acknowledge(subscription, deliveries)

    async def _publish(self, messages: list[Message]) -> None:
        """Send these; of one that the bus never takes, what can be said in its place."""
        try:
            await self._bus.publish(messages)
        except _NEVER_SENT as error:
            if len(messages) == 1:
                await self._publish_instead(messages[0], error)
                return
            # The bus counts more than the value, and a codec may stumble over one: one by one only
            # that is lost.
            for message in messages:
                await self._publish([message])

    async def _publish_instead(
        self, message: Message, error: MessageTooLarge | PayloadError
    ) -> None:
        instead = _instead_of(decode(message.value, limit=self._bus.max_message_bytes), error)
        if instead is not None:
            try:
                await self._bus.publish([replace(message, value=encode(instead))])
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
        """The bytes of a report; one that cannot be sent is replaced by what can be said in its
        place.
        """
        try:
            return encode(report, limit=self._bus.max_message_bytes)
        except MessageError as error:
            instead = _instead_of(report, error)
        if instead is None:
            logger.warning(
                "A report of progress of task %s was dropped: it is too large", report.task_id
            )
            return None
        return encode(instead)


def _instead_of(report: WorkerReport, error: MessageError | PayloadError) -> WorkerReport | None:
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


async def acknowledge(subscription: Subscription, deliveries: list[Delivery]) -> None:
    """Acknowledge; if that fails the messages come again, and are known."""
    try:
        await subscription.ack(deliveries)
    except Exception as error:
        logger.info(
            "%d commands could not be acknowledged: %s",
            len(deliveries),
            error,
            extra={"action": "ack_failed"},
        )
