"""Hints to the coordinators that tasks changed."""

import logging
from collections.abc import Collection, Mapping, Sequence

from flowkit._engine import EndSegments, WithdrawCommand
from flowkit._records.claims import prove_withdrawn, withdraw
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.retries import notices_of
from flowkit._tasks.event_processor import EventProcessor, Outcome
from flowkit._tasks.submission import Submission
from flowkit.errors import BusError, MessageError, PayloadError, StoreError
from flowkit.messages import EndSegments as EndSegmentsMessage
from flowkit.messages import ScheduleTouched, TaskTouched, encode, headers_of
from flowkit.protocols import ArtifactStore, Clock, Message
from flowkit.tracing import TraceContext

logger = logging.getLogger(__name__)


class Hints:
    """Sender of hints that tasks changed.

    A lost hint costs time and no work: the coordinators find the task in the store later. So an
    error of the bus is logged and not raised.
    """

    def __init__(
        self, *, connection: BusConnection, topic: str, control_topic: str, clock: Clock
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._control_topic = control_topic
        self._notices = notices_of(clock)

    async def send(self, tasks: Mapping[str, TraceContext | None]) -> None:
        """Send a hint for each of these tasks, with its trace."""
        await self._publish(
            [
                Message(
                    self._topic, encode(TaskTouched(task_id=task_id)), task_id, headers_of(trace)
                )
                for task_id, trace in tasks.items()
            ]
        )

    async def schedule_changed(self, schedule_id: str) -> None:
        """Send a hint that a schedule was put or changed."""
        touched = encode(ScheduleTouched(schedule_id=schedule_id))
        await self._publish([Message(self._topic, touched, schedule_id, headers_of(None))])

    async def end_segments(self, tasks: Mapping[str, TraceContext | None]) -> None:
        """Ask the workers to begin no further nodes of these tasks without commands. Coordinators
        repeat this when they read the hint.
        """
        await self._publish(
            [
                Message(
                    self._control_topic,
                    encode(EndSegmentsMessage(task_id=task_id)),
                    task_id,
                    headers_of(trace),
                )
                for task_id, trace in tasks.items()
            ]
        )

    async def _publish(self, messages: Sequence[Message]) -> None:
        try:
            bus = await self._connection.connect()
            await bus.publish(messages)
        except (BusError, MessageError, PayloadError) as error:
            self._notices.trouble(
                logger,
                "hints",
                "Changes cannot be reported to coordinators, which find them in the store later",
                error,
                action="hint_lost",
            )
        else:
            if self._notices.open:
                self._notices.over(logger, "hints")

    async def changed(self, task_ids: Collection[str], outcome: Outcome) -> None:
        """Send a hint about each task to which an event was applied."""
        traces = {todo.task.task_id: todo.task.spec.trace for todo in outcome.effects}
        await self.send({task_id: traces.get(task_id) for task_id in task_ids})


class HintDispatcher:
    """Dispatcher of a client: it leaves the work to the coordinators, and sends them hints."""

    def __init__(
        self, hints: Hints, *, artifacts: ArtifactStore, processor: EventProcessor, clock: Clock
    ) -> None:
        self._hints = hints
        self._artifacts = artifacts
        self._processor = processor
        self._clock = clock

    async def submitted(self, submissions: Mapping[str, Submission]) -> None:
        await self._hints.send(
            {task_id: new.task.spec.trace for task_id, new in submissions.items()}
        )

    async def changed(self, task_ids: Collection[str], outcome: Outcome) -> None:
        effects = ((todo.task, todo.effects) for todo in outcome.effects)
        await withdraw(self._artifacts, effects, self._clock.now())
        if ending := {
            todo.task.task_id: todo.task.spec.trace
            for todo in outcome.effects
            if any(isinstance(effect, EndSegments) for effect in todo.effects)
        }:
            # Directly: on the way over a coordinator, a worker could begin more nodes meanwhile.
            await self._hints.end_segments(ending)
        await self._withdraw(outcome)
        await self._hints.changed(task_ids, outcome)

    async def _withdraw(self, outcome: Outcome) -> None:
        """Withdraw the commands that need a proof, so that a task that no worker has begun ends
        also without a coordinator. If that fails, the coordinators do it.
        """
        orders = [
            (todo.task, effect)
            for todo in outcome.effects
            for effect in todo.effects
            if isinstance(effect, WithdrawCommand)
        ]
        if not orders:
            return
        try:
            await self._processor.apply(
                await prove_withdrawn(self._artifacts, orders, self._clock.now())
            )
        except StoreError as error:
            logger.warning(
                "%d commands of stopped nodes were not withdrawn yet: %s",
                len(orders),
                error,
                extra={"action": "withdrawal_failed"},
            )

    async def schedule_changed(self, schedule_id: str) -> None:
        await self._hints.schedule_changed(schedule_id)

    async def trigger_changed(self, trigger_id: str) -> None:
        """Leave the events to the coordinators, which read them at their next tick."""
