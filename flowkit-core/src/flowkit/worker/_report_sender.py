"""Sender of reports: publishes what runs report, then acknowledges their commands."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from flowkit._runtime.deadlines import patiently
from flowkit._text.redaction import writable
from flowkit.errors import MessageError, MessageTooLarge, PayloadError
from flowkit.messages import (
    NodeFailed,
    NodeReleased,
    NodeStarted,
    NodeSucceeded,
    WorkerReport,
    decode,
    encode,
)
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.worker._attempts import Attempts
from flowkit.worker._reports import DueReports, ReportBuffer, RunReports, acknowledge

logger = logging.getLogger(__name__)

_NEVER_SENT = (MessageTooLarge, PayloadError)
_REFUSED_RESULTS = {
    MessageTooLarge: ("result_too_large", True),
    PayloadError: ("result_not_encoded", False),  # the codec may succeed another time
}
"""Reason code of a result that cannot be sent, and whether the failure is permanent."""


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
