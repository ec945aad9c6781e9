"""Commands of a worker: the attempts that they start, their cancellation and hand-over."""

import asyncio
import hmac
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import anyio
from anyio.abc import TaskGroup

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.concurrency import Recent, within
from flowkit._runtime.retries import patiently
from flowkit.errors import DecodeError, FlowKitError, MessageError
from flowkit.messages import CancelRun, NodeSucceeded, RunNode, decode, encode
from flowkit.protocols import Bus, Clock, Delivery, Message, Subscription
from flowkit.worker._context import Services
from flowkit.worker._node_run import Following, Run
from flowkit.worker._reports import (
    Origin,
    ReportBuffer,
    ReportSender,
    RunReports,
    acknowledge,
    acknowledge_all,
    by_subscription,
)
from flowkit.worker._roles import Served, handler_of
from flowkit.worker._segments import SegmentProgress, start_of
from flowkit.worker._slots import Runnable, Slots

logger = logging.getLogger(__name__)

MAX_CANCELLED = 10_000
MAX_ENDS = 1_000
MAX_ENDS_BYTES = 8 * 1024 * 1024
LOOK_AHEAD = 8
"""Commands taken beyond the free slots, so that the most urgent of them starts first."""
HOLD_SEC = 0.1
"""Time without a free slot after which commands that wait for one go to other workers."""
SEND_BACK_SEC = 5.0
"""Time in which a stopping worker tries to send back the commands that it was handed over."""
CLEAN_UP_SEC = 1.0
"""Time for the cleanups of a run that was cut off, in addition to its grace."""

AttemptKey = tuple[str, str]
"""The task id and the token of an attempt."""
HandedOver = tuple[RunNode, Mapping[str, bytes]]
"""A command that another worker handed over to this one, and its headers."""


class Attempts:
    """All attempts that this worker has or had, so that a repeated command starts no second run."""

    def __init__(
        self,
        group: TaskGroup,
        *,
        bus: Bus,
        served: Mapping[str, Served],
        slots: Slots,
        buffer: ReportBuffer,
        services: Services,
    ) -> None:
        """``group`` runs what cancellations leave to be done later."""
        self._group = group
        self._bus = bus
        self._served = served
        self._is_draining = False
        self._without_segments: Recent[str, None] = Recent(MAX_CANCELLED)
        """Tasks whose segments were ended. A command may have been on its way."""
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

    def accept(
        self,
        command: RunNode,
        served: Served,
        headers: Mapping[str, bytes],
        origin: Origin | None = None,
    ) -> bool:
        """Queue a run of this command, unless its attempt is known. A command without an ``origin``
        was handed over by another worker.

        Return False if the attempt was cancelled before it started, or has ended: then the command
        can be acknowledged.
        """
        key = (command.task_id, command.token)
        if key in self._cancelled or self.repeat_end(key):
            return False
        if not self.repeat_start(key, origin):
            reports = RunReports(self._buffer, command, headers, origin)
            segment = (
                SegmentProgress(command, command.segment, self._services.clock)
                if command.segment is not None and command.data is not None
                else None
            )
            if command.task_id in self._without_segments:
                reports.end_segment()
            self._submit(
                Run(command, served, reports, self._services, follow=self._follow, segment=segment),
                was_requested=origin is None,
            )
        return True

    def _submit(self, run: Run, *, was_requested: bool = False) -> None:
        self._runs[run.command.task_id, run.command.token] = run
        self._slots.submit(run, was_requested=was_requested)

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
        """Send the end of an attempt once more, if it is remembered, with the ends that follow in
        its segment: they do not count without it.
        """
        is_known = key in self._ends.sent
        following: AttemptKey | None = key
        while following is not None and (end := self._ends.sent.get(following)) is not None:
            self._buffer.add_message(end.message)
            following = end.following
        return is_known

    def close(self, command: RunNode, end: Message | None) -> None:
        """Remove a run whose end is on the bus, and remember its end report."""
        key = (command.task_id, command.token)
        run = self._runs.pop(key)
        if end is not None:
            self._ends.add(key, _SentEnd(end, run.following))

    # ------------------------------------------------ segments

    def _follow(self, run: Run, end: NodeSucceeded) -> Following | None:
        """Return the run of the next node and the report of its start, or None if the segment ends
        with this success.
        """
        segment = run.segment
        if segment is None or self._is_draining or run.cancelled or run.reports.ended:
            return None
        if run.command.task_id in self._without_segments:
            return None
        node = segment.next_node
        if node is None or node.role not in self._served or self._slots.is_wanted(run.priority):
            return None
        end = end.model_copy(update={"next": start_of(node)})
        try:
            encoded = encode(end, limit=self._bus.max_message_bytes)
        except MessageError:
            return None  # the sender reports a failure in its place
        command = segment.command_after(run.command, end)
        before = run.reports
        following = Run(
            command,
            self._served[node.role],
            RunReports(self._buffer, command, before.headers, None),
            self._services,
            follow=self._follow,
            segment=segment,
            after=before,
        )
        run.following = command.task_id, command.token
        self._runs[run.following] = following
        before.on_bus = None if segment.eager else asyncio.Event()
        before.on_refused = partial(following.cancel, "the result of the node before was refused")
        return following, end, encoded

    def end_segments(self, task_id: str) -> None:
        """Begin no further nodes of a task without commands, report that, and hand back the one
        that has not begun.
        """
        self._without_segments[task_id] = None
        for run in self._runs.values():
            if run.command.task_id == task_id and run.segment is not None:
                run.reports.end_segment()
        self._hand_back_following(lambda before: before.task_id == task_id)

    def end_all_segments(self) -> None:
        """Begin no further nodes without commands, because the worker stops."""
        self._is_draining = True

    # ------------------------------------------------ hand-over

    def waiting(self) -> dict[str, int]:
        """Return the number of runs that wait for a slot, by role."""
        if not self._slots.excess:
            return {}
        return Counter(run.command.role for run in _runs(self._slots.waiting))

    def take_waiting(self, roles: Container[str], most: int) -> Sequence[Run]:
        """Remove and return runs of these roles that wait for a slot, the most urgent first."""
        most = min(most, self._slots.excess)
        return self._withdraw_runs(lambda run: run.command.role in roles, most)

    def put_back(self, runs: Iterable[Run]) -> None:
        """Queue runs again that were taken, unless they were cancelled or delivered meanwhile."""
        for run in runs:
            key = (run.command.task_id, run.command.token)
            if key in self._runs:
                self._runs[key].reports.origins += run.reports.origins
            elif key in self._cancelled:
                self._group.start_soon(acknowledge_all, run.reports.origins)
            else:
                self._submit(run)

    def _withdraw_runs(
        self, which: Callable[[Run], bool] | None = None, most: int | None = None
    ) -> Sequence[Run]:
        """Remove and return runs that have not started.

        All leave the table before the caller awaits anything: a cancel may arrive meanwhile.
        """
        runs = _runs(self._slots.withdraw(which, most=most))
        for run in runs:
            del self._runs[run.command.task_id, run.command.token]
        return runs

    async def hand_over_waiting(self) -> None:
        """Release the commands of runs that have not started, for other workers."""
        runs = self._withdraw_runs()
        origins = [origin for run in runs for origin in run.reports.origins]
        for subscription, deliveries in by_subscription(origins).items():
            await subscription.release(deliveries)
        without = [run for run in runs if not run.reports.origins]
        if without:
            await self.send_back([(run.command, run.reports.headers) for run in without])

    async def send_back(self, commands: Sequence[HandedOver]) -> None:
        """Publish commands again that another worker handed over to this one.

        If that fails, a coordinator notices that no worker has started them.
        """
        topic = self._services.cfg.command_topic
        messages = [
            Message(topic(command.role), encode(command), command.task_id, headers)
            for command, headers in commands
        ]
        try:
            await within(
                SEND_BACK_SEC, partial(self._bus.publish, messages), clock=self._services.clock
            )
        except FlowKitError as error:
            logger.info(
                "%d commands were not sent back: %s",
                len(messages),
                error,
                extra={"action": "send_back_failed"},
            )

    def hand_back_running(self) -> None:
        """Cut off all running runs. Their attempts do not count as attempts."""
        for run in self._runs.values():
            if self._slots.has_begun(run):
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
            self._hand_back_following(lambda before: before.token == order.token)
        elif run.cancelled:
            return  # the coordinator repeats a cancel until the run has ended
        elif self._slots.has_begun(run):
            run.cancel(order.reason or "the run was cancelled")
            self._group.start_soon(self._cut_off_later, run)
        else:
            self._withdraw(run)

    def _hand_back_following(self, which: Callable[[RunNode], bool]) -> None:
        """Hand back the runs that follow a run of such a command in a segment and have not
        begun.
        """
        for run in self._runs.values():
            if run.after is not None and not run.reports.begun and which(run.after.command):
                run.hand_back()

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
        self._group.start_soon(acknowledge_all, run.reports.origins)

    async def _cut_off_later(self, run: Run) -> None:
        grace = self._services.cfg.cancel_grace_sec
        await self._services.clock.sleep(grace)
        if self._slots.has_begun(run):
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
        if not self._slots.has_begun(run):
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


def _runs(runnables: Sequence[Runnable]) -> Sequence[Run]:
    """Return the runs in the slots of a worker, which has no others."""
    return cast("Sequence[Run]", runnables)


@dataclass(frozen=True, slots=True)
class _SentEnd:
    """End of an attempt, as it was sent."""

    message: Message
    following: AttemptKey | None
    """The attempt that follows in its segment."""


class _SentEnds:
    """The last end reports as they were sent. A coordinator that missed one asks for it."""

    __slots__ = ("_bytes", "sent")

    def __init__(self) -> None:
        self.sent: OrderedDict[AttemptKey, _SentEnd] = OrderedDict()
        self._bytes = 0

    def add(self, key: AttemptKey, end: _SentEnd) -> None:
        self.sent[key] = end
        self._bytes += len(end.message.value)
        while len(self.sent) > MAX_ENDS or self._bytes > MAX_ENDS_BYTES:
            self._bytes -= len(self.sent.popitem(last=False)[1].message.value)


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
        on_busy: Callable[[], None],
        slots: Slots,
        sender: ReportSender,
        parking: Parking,
        clock: Clock,
    ) -> None:
        """``on_busy`` is called while no slot is free for longer than a moment."""
        self._bus = bus
        self._topics = topics
        self._group = group
        # Twice the slots: the next commands are taken while the last reports are being sent.
        self._max_unacked = 2 * max_concurrency + LOOK_AHEAD
        self._served = served
        self._attempts = attempts
        self._on_busy = on_busy
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
                await self._settle(subscription, await self._take(subscription))
            await self._attempts.hand_over_waiting()
            await self._sender.flush()

    async def _take(self, subscription: Subscription) -> "_Rest":
        """Start runs, until there is no free slot or a command is left that starts none."""
        rest = _Rest()
        with anyio.CancelScope() as self._taking:
            stays_busy = not await self._slot_is_free()
            while not self._stopping and not rest.known and not rest.unusable:
                if self._slots.free:
                    stays_busy = False
                elif not stays_busy:
                    break
                else:
                    self._on_busy()
                room = await self._room()
                deliveries = await patiently(
                    partial(subscription.receive, max_messages=room),
                    clock=self._clock,
                    what="receive from the bus",
                )
                self._accept(subscription, deliveries, rest)
        self._taking = None
        return rest

    async def _slot_is_free(self) -> bool:
        """Wait a moment for a free slot, and return whether there is one.

        On a bus without key affinity, release the commands that wait, and wait until there is one:
        there, other workers receive all commands that this one leaves.
        """
        if self._slots.free or await within(HOLD_SEC, self._free, clock=self._clock):
            return True
        if self._bus.key_affinity:
            return False
        await self._attempts.hand_over_waiting()
        await self._free()
        return True

    async def _free(self) -> None:
        await self._slots.wait_until(lambda slots: slots.free > 0)

    async def _room(self) -> int:
        """Return how many commands to receive, when there is room.

        A worker that stays busy receives some as well: only so it can offer them to other workers.
        """
        await self._slots.wait_until(lambda slots: slots.excess <= LOOK_AHEAD // 2)
        return self._slots.free + LOOK_AHEAD - self._slots.excess

    def _accept(
        self, subscription: Subscription, deliveries: Sequence[Delivery], rest: "_Rest"
    ) -> None:
        for delivery in deliveries:
            try:
                command, served = self._decoded(delivery)
            except DecodeError as error:
                rest.unusable.append((delivery, str(error)))
                continue
            origin = subscription, delivery
            if not self._attempts.accept(command, served, delivery.message.headers, origin):
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
        return command, handler_of(command, self._served)


@dataclass(slots=True)
class _Rest:
    """Received messages that start no run."""

    known: list[Delivery] = field(default_factory=list)
    """Commands of attempts that were cancelled before their start, or have ended."""
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)
    """Messages that are no commands for this worker, and why."""
