"""Incoming messages: commands that are taken and started, cancels and hints that are heeded."""

import hmac
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from anyio.abc import TaskGroup

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._runtime.deadlines import Recent, Signal, patiently
from flowkit.errors import DecodeError
from flowkit.messages import AskRun, CancelRun, NodeFailed, RunNode, StreamMoved, decode, headers_of
from flowkit.protocols import Delivery, Subscription
from flowkit.tracing import trace_from
from flowkit.worker._ends import Ends
from flowkit.worker._handler_registry import Make
from flowkit.worker._reports import Reporter, RunReports, acknowledge
from flowkit.worker._run import Run
from flowkit.worker._services import Services
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
CLEAN_UP_SEC = 1.0
"""A run that is cut off may take its grace once more, and this, for its cleanups."""

Token = tuple[str, str]


class Inbox:
    """The commands this worker has, had, or must not begin."""

    def __init__(
        self,
        group: TaskGroup,
        *,
        slots: Slots,
        reporter: Reporter,
        services: Services,
        served: Mapping[str, Make],
    ) -> None:
        self._group = group
        self._slots = slots
        self._reporter = reporter
        self._services = services
        self._served = served
        self.runs: dict[Token, Run] = {}
        """Those that are not over, or whose end was not confirmed."""
        self._ends = Ends()
        self._parking = Parking(store=services.store, clock=services.clock)
        self._cancelled = Recent(REMEMBERED)
        self._refused: list[tuple[Delivery, str]] = []
        self._refused_signal = Signal()

    # ------------------------------------------------ commands

    async def accept(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        """Start what is new, acknowledge what is known, park what cannot be understood."""
        known: list[Delivery] = []
        refused: list[tuple[Delivery, str]] = []
        for delivery in deliveries:
            try:
                command = decode(delivery.message.value)
                if not isinstance(command, RunNode):
                    raise DecodeError(f"a {type(command).__name__} is no command")
                make = self._served.get(command.role)
                if make is None:
                    raise DecodeError(f"this worker does not serve role {command.role!r}")
            except DecodeError as error:
                refused.append((delivery, str(error)))
                continue
            token = (command.task_id, command.token)
            if token in self._cancelled or self._repeat_end(token):
                known.append(delivery)
            elif token in self.runs:
                self.runs[token].reports.origins.append((subscription, delivery))
                self.runs[token].reports.tell_again()
            else:
                self._begin(token, command, make, subscription, delivery)
        if known:
            await acknowledge(subscription, known)
        kept = await self._parking.keep(refused)
        for delivery, reason in refused:
            reject = partial(self._parking.reject, subscription, delivery, reason, kept=kept)
            await patiently(reject, clock=self._services.clock, what="park a message")

    def _begin(
        self,
        token: Token,
        command: RunNode,
        make: Make,
        subscription: Subscription,
        delivery: Delivery,
    ) -> None:
        reports = RunReports(self._reporter, command, (subscription, delivery), self._told)
        run = self.runs[token] = Run(command, make, reports, self._services)
        self._slots.submit(run)

    def _told(self, reports: RunReports) -> None:
        token = (reports.command.task_id, reports.command.token)
        del self.runs[token]
        if reports.end_message is not None:
            self._ends.add(token, reports.end_message)

    async def hand_over_waiting(self) -> None:
        """Give commands that have not begun to another worker."""
        waiting: dict[Subscription, list[Delivery]] = {}
        for run in self._slots.withdraw():
            assert isinstance(run, Run)
            # All leave the table before the first is awaited: meanwhile a cancel may take out one
            # of them.
            del self.runs[run.command.task_id, run.command.token]
            for subscription, delivery in run.reports.origins:
                waiting.setdefault(subscription, []).append(delivery)
        for subscription, deliveries in waiting.items():
            await subscription.release(deliveries)

    def hand_back_running(self) -> None:
        """Cut off what runs; the attempts count as not having been made."""
        for run in self.runs.values():
            if self._slots.is_running(run):
                run.hand_back()
                self._slots.cut_off(run)

    async def wait_until_acknowledged(self) -> None:
        """Return when the commands of all that has begun are acknowledged."""
        await self._reporter.flush()

    # ------------------------------------------------ control

    def heed(self, deliveries: Sequence[Delivery]) -> None:
        """Obey cancels, answer questions to this worker, pass on hints, and leave the rest to
        :meth:`keep_refused`.

        Nothing is awaited here: a cancel waits neither for the store nor for the bus.
        """
        for delivery in deliveries:
            try:
                message = decode(delivery.message.value)
                if not isinstance(message, StreamMoved | CancelRun | AskRun):
                    raise DecodeError(f"a {message.kind} is not for the control topic")
            except DecodeError as error:
                self._refused.append((delivery, str(error)))
                self._refused_signal.set()
            else:
                self._heed(message, delivery)

    async def keep_refused(self) -> None:
        """The loop that keeps control messages that cannot be understood as dead letters.

        Every worker gets a message of the control topic and keeps it under the same id, so the
        store has one dead letter of it. The dead-letter topic, which would get one from each
        worker, gets none.
        """
        while True:
            await self._refused_signal.wait()
            refused, self._refused = self._refused, []
            await self._parking.keep(refused)

    def _heed(self, message: StreamMoved | CancelRun | AskRun, delivery: Delivery) -> None:
        if isinstance(message, StreamMoved):
            self._services.watches.notice(message)
        elif isinstance(message, CancelRun):
            self._cancel(message)
        elif message.worker_id == self._services.worker_id:
            self._answer(message, delivery)

    def _answer(self, question: AskRun, delivery: Delivery) -> None:
        """Report the state of an attempt that was started under this worker's name. One that is
        unknown here ended unreported.
        """
        token = (question.task_id, question.token)
        if (run := self.runs.get(token)) is not None:
            run.reports.tell_again()
        elif not self._repeat_end(token):
            now, worker_id = self._services.clock.now(), self._services.worker_id
            lost = NodeFailed(
                task_id=question.task_id,
                index=question.index,
                attempt=question.attempt,
                token=question.token,
                worker_id=worker_id,
                started_at=now,
                at=now,
                reason_code="worker_lost",
                error=(
                    f"worker {worker_id!r} does not know this attempt any more: it was restarted,"
                    " or its report was lost"
                ),
            )
            self._reporter.answer(lost, headers_of(trace_from(delivery.message.headers)))

    def _repeat_end(self, token: Token) -> bool:
        """Send the end of an attempt once more, if it is known here."""
        end = self._ends.get(token)
        if end is not None:
            self._reporter.repeat(end)
        return end is not None

    def _cancel(self, order: CancelRun) -> None:
        for run in list(self.runs.values()):
            command = run.command
            if command.task_id != order.task_id or command.index != order.index:
                continue
            if (
                not hmac.compare_digest(command.token.encode(), order.token.encode())
                or run.reports.ended
            ):
                continue
            if self._slots.is_running(run):
                if run.cancelled:
                    return  # the coordinator says it until it hears of an end
                run.cancel(order.reason or "the run was cancelled")
                self._group.start_soon(self._cut_off_later, run)
                return
            self._slots.withdraw(lambda waiting, run=run: waiting is run)  # type: ignore[misc]
            del self.runs[command.task_id, command.token]
            self._cancelled.add((command.task_id, command.token))
            for subscription, delivery in run.reports.origins:
                self._group.start_soon(acknowledge, subscription, [delivery])
            return
        self._cancelled.add((order.task_id, order.token))

    async def _cut_off_later(self, run: Run) -> None:
        grace = self._services.cfg.cancel_grace_sec
        await self._services.clock.sleep(grace)
        if self._slots.is_running(run):
            logger.warning(
                "Node %s did not end within %.1f s of being cancelled and is cut off",
                run.command.node_id,
                grace,
                extra={"action": "run_cut_off", "task_id": run.command.task_id},
            )
            self._slots.cut_off(run)
            await self._services.clock.sleep(grace + CLEAN_UP_SEC)
            self._abandon(run)

    def abandon_running(self) -> None:
        """Go on without what does not end although it was cut off."""
        for run in list(self.runs.values()):
            self._abandon(run)

    def _abandon(self, run: Run) -> None:
        if not self._slots.is_running(run):
            return
        run.abandon()
        self._slots.abandon(run)
        if self._slots.capacity < self._services.cfg.max_concurrency:
            logger.error(
                "%d runs were cut off and go on all the same: this worker runs no more than %d"
                " beside them",
                self._slots.abandoned,
                self._slots.capacity,
                extra={"action": "slots_lost"},
            )
