"""Commands of a worker: the attempts that they start, their cancellation and hand-over."""

import hmac
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import TaskGroup

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.concurrency import Recent, within
from flowkit._runtime.retries import patiently
from flowkit.errors import DecodeError
from flowkit.messages import CancelRun, RunNode, decode
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.worker._context import Services
from flowkit.worker._node_run import Run
from flowkit.worker._reports import (
    Origin,
    ReportBuffer,
    ReportSender,
    RunReports,
    acknowledge,
)
from flowkit.worker._roles import Served
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

MAX_CANCELLED = 10_000
MAX_ENDS = 1_000
MAX_ENDS_BYTES = 8 * 1024 * 1024
LOOK_AHEAD = 8
"""Commands taken beyond the free slots, so that the most urgent of them starts first."""
HOLD_SEC = 0.1
"""Time after which commands that wait for a slot are released to other workers."""
CLEAN_UP_SEC = 1.0
"""Time for the cleanups of a run that was cut off, in addition to its grace."""

AttemptKey = tuple[str, str]
"""The task id and the token of an attempt."""


class Attempts:
    """All attempts that this worker has or had, so that a repeated command starts no second run."""

    def __init__(
        self, group: TaskGroup, *, slots: Slots, buffer: ReportBuffer, services: Services
    ) -> None:
        """``group`` runs what cancellations leave to be done later."""
        self._group = group
        self._slots = slots
        self._buffer = buffer
        self._services = services
        self._runs: dict[AttemptKey, Run] = {}
        """Runs that have not ended, or whose end is not on the bus."""
        self._ends = _SentEnds()
        self._cancelled: Recent[AttemptKey, None] = Recent(MAX_CANCELLED)
        """Attempts that were cancelled before they started. They never start."""

    @property
    def worker_id(self) -> str:
        return self._services.worker_id

    # ------------------------------------------------ start and end

    def accept(self, command: RunNode, served: Served, origin: Origin) -> bool:
        """Queue a run of this command, unless its attempt is known.

        Return False if the attempt was cancelled before it started, or has ended: then the command
        can be acknowledged.
        """
        key = (command.task_id, command.token)
        if key in self._cancelled or self.repeat_end(key):
            return False
        if not self.repeat_start(key, origin):
            run = Run(command, served, RunReports(self._buffer, command, origin), self._services)
            self._runs[key] = run
            self._slots.submit(run)
        return True

    def repeat_start(self, key: AttemptKey, origin: Origin | None = None) -> bool:
        """Report the start of a run once more. Return False if there is no run of this attempt.

        ``origin`` is a repeated delivery of the command: it is acknowledged with the next report.
        """
        run = self._runs.get(key)
        if run is None:
            return False
        if origin is not None:
            run.reports.origins.append(origin)
        run.reports.repeat_start()
        return True

    def repeat_end(self, key: AttemptKey) -> bool:
        """Send the end of an attempt once more, if it is remembered."""
        message = self._ends.messages.get(key)
        if message is not None:
            self._buffer.add_message(message)
        return message is not None

    def close(self, command: RunNode, end: Message | None) -> None:
        """Remove a run whose end is on the bus, and remember its end report."""
        key = (command.task_id, command.token)
        del self._runs[key]
        if end is not None:
            self._ends.add(key, end)

    # ------------------------------------------------ hand-over

    async def hand_over_waiting(self) -> None:
        """Release the commands of runs that have not started, for other workers."""
        waiting: dict[Subscription, list[Delivery]] = {}
        for run in self._slots.withdraw():
            assert isinstance(run, Run)
            # All leave the table before the first await: a cancel may arrive meanwhile.
            del self._runs[run.command.task_id, run.command.token]
            for subscription, delivery in run.reports.origins:
                waiting.setdefault(subscription, []).append(delivery)
        for subscription, deliveries in waiting.items():
            await subscription.release(deliveries)

    def hand_back_running(self) -> None:
        """Cut off all running runs. Their attempts do not count as attempts."""
        for run in self._runs.values():
            if self._slots.is_running(run):
                run.hand_back()
                self._slots.cut_off(run)

    def abandon_running(self) -> None:
        """Abandon all runs that go on although they were cut off."""
        for run in list(self._runs.values()):
            self._abandon(run)

    @property
    def holds_keys(self) -> bool:
        """Whether a run that has the place of a concurrency key goes on."""
        return any(run.command.exclusive and not run.reports.ended for run in self._runs.values())

    # ------------------------------------------------ cancellation

    def cancel(self, order: CancelRun) -> None:
        """Cancel the run of this attempt.

        A run that has not started is removed; an attempt that is unknown will not start.
        """
        run = self._run_of(order)
        if run is None:
            self._cancelled[order.task_id, order.token] = None
        elif run.cancelled:
            return  # the coordinator repeats a cancel until the run has ended
        elif self._slots.is_running(run):
            run.cancel(order.reason or "the run was cancelled")
            self._group.start_soon(self._cut_off_later, run)
        else:
            self._withdraw(run)

    def _run_of(self, order: CancelRun) -> Run | None:
        token = order.token.encode()
        for run in self._runs.values():
            command = run.command
            if (
                command.task_id == order.task_id
                and command.index == order.index
                and hmac.compare_digest(command.token.encode(), token)
                and not run.reports.ended
            ):
                return run
        return None

    def _withdraw(self, run: Run) -> None:
        self._slots.withdraw(lambda waiting: waiting is run)
        key = (run.command.task_id, run.command.token)
        del self._runs[key]
        self._cancelled[key] = None
        for subscription, delivery in run.reports.origins:
            self._group.start_soon(acknowledge, subscription, [delivery])

    async def _cut_off_later(self, run: Run) -> None:
        grace = self._services.cfg.cancel_grace_sec
        await self._services.clock.sleep(grace)
        if self._slots.is_running(run):
            logger.warning(
                "Node %s did not end within %.1f s of its cancellation and is cut off",
                run.command.node_id,
                grace,
                extra={"action": "run_cut_off", "task_id": run.command.task_id},
            )
            self._slots.cut_off(run)
            await self._services.clock.sleep(grace + CLEAN_UP_SEC)
            self._abandon(run)

    def _abandon(self, run: Run) -> None:
        if not self._slots.is_running(run):
            return
        run.abandon()
        self._slots.abandon(run)
        if self._slots.capacity < self._services.cfg.max_concurrency:
            logger.error(
                "%d runs go on although they were cut off: this worker runs at most %d others at"
                " a time",
                self._slots.abandoned,
                self._slots.capacity,
                extra={"action": "slots_lost"},
            )


class _SentEnds:
    """The last end reports as they were sent. A coordinator that missed one asks for it."""

    __slots__ = ("_bytes", "messages")

    def __init__(self) -> None:
        self.messages: OrderedDict[AttemptKey, Message] = OrderedDict()
        self._bytes = 0

    def add(self, key: AttemptKey, message: Message) -> None:
        self.messages[key] = message
        self._bytes += len(message.value)
        while len(self.messages) > MAX_ENDS or self._bytes > MAX_ENDS_BYTES:
            self._bytes -= len(self.messages.popitem(last=False)[1].value)


class CommandInbox:
    """The commands of the worker's roles."""

    def __init__(
        self,
        *,
        bus: Bus,
        topics: Sequence[str],
        group: str,
        max_concurrency: int,
        served: Mapping[str, Served],
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
                await self._hold_waiting()
                await self._settle(subscription, await self._take(subscription))
            await self._attempts.hand_over_waiting()
            await self._sender.flush()

    async def _hold_waiting(self) -> None:
        """Hold the runs that wait for a slot for a moment, then release them to other workers."""
        if self._slots.excess and not await within(
            HOLD_SEC, self._wait_until_all_have_slots, clock=self._clock
        ):
            await self._attempts.hand_over_waiting()

    async def _wait_until_all_have_slots(self) -> None:
        await self._slots.wait_until(lambda slots: slots.excess == 0)

    async def _take(self, subscription: Subscription) -> "_Rest":
        """Start runs, until there is no free slot or a command is left that starts none."""
        rest = _Rest()
        with anyio.CancelScope() as self._taking:
            await self._slots.wait_until(lambda slots: slots.free > 0)
            while not self._stopping and not rest.known and not rest.unusable:
                free = self._slots.free
                if not free:
                    break
                deliveries = await patiently(
                    partial(subscription.receive, max_messages=free + LOOK_AHEAD),
                    clock=self._clock,
                    what="receive from the bus",
                )
                self._accept(subscription, deliveries, rest)
        self._taking = None
        return rest

    def _accept(
        self, subscription: Subscription, deliveries: Sequence[Delivery], rest: "_Rest"
    ) -> None:
        for delivery in deliveries:
            try:
                command, served = self._decoded(delivery)
            except DecodeError as error:
                rest.unusable.append((delivery, str(error)))
                continue
            if not self._attempts.accept(command, served, (subscription, delivery)):
                rest.known.append(delivery)

    async def _settle(self, subscription: Subscription, rest: "_Rest") -> None:
        """Acknowledge commands of known attempts, and park unusable messages."""
        if rest.known:
            await acknowledge(subscription, rest.known)
        kept = await self._parking.keep(rest.unusable)
        for delivery, reason in rest.unusable:
            reject = partial(self._parking.reject, subscription, delivery, reason, kept=kept)
            await patiently(reject, clock=self._clock, what="park a message")

    def _decoded(self, delivery: Delivery) -> tuple[RunNode, Served]:
        command = decode(delivery.message.value)
        if not isinstance(command, RunNode):
            raise DecodeError(f"a {type(command).__name__} is not a command")
        served = self._served.get(command.role)
        if served is None:
            raise DecodeError(f"this worker does not serve role {command.role!r}")
        return command, served


@dataclass(slots=True)
class _Rest:
    """Received messages that start no run."""

    known: list[Delivery] = field(default_factory=list)
    """Commands of attempts that were cancelled before their start, or have ended."""
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)
    """Messages that are no commands for this worker, and why."""
