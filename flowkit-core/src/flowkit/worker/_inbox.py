"""Messages in: commands of the worker's roles, and control messages to all workers."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.deadlines import Signal, patiently, within
from flowkit.errors import DecodeError
from flowkit.messages import AskRun, CancelRun, NodeFailed, RunNode, StreamMoved, decode, headers_of
from flowkit.protocols import Bus, Clock, Delivery, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._attempts import Attempts
from flowkit.worker._handler_registry import Make
from flowkit.worker._report_sender import ReportSender
from flowkit.worker._reports import ReportBuffer, acknowledge
from flowkit.worker._slots import Slots
from flowkit.worker._streams import StreamWatches

logger = logging.getLogger(__name__)

LOOK_AHEAD = 8
"""Commands taken beyond the free slots, so that the most urgent of them starts first."""
HOLD_SEC = 0.1
"""Time after which commands that wait for a slot are released to other workers."""


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
