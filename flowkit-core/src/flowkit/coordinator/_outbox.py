"""The outbox: it sends commands, cancellations and hints to the bus."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from flowkit._engine import (
    AskWorker,
    CallFunction,
    CheckCommand,
    CommandsSent,
    Effect,
    EvaluateCondition,
    SendCancel,
    SendCommand,
    SentCommand,
    TellReaders,
)
from flowkit._records.claims import withdraw
from flowkit._records.queries import errors_of, records_of, results_of, sources_from
from flowkit._runtime.backoff import Backoff, retry
from flowkit._runtime.outage_notices import notices_of
from flowkit._tasks.cached_tasks import CachedTask, TaskEffects
from flowkit._tasks.event_processor import EventProcessor
from flowkit._text.redaction import MAX_ERROR_CHARS
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._command_watch import CommandWatch
from flowkit.errors import (
    BusError,
    BusUnavailable,
    MessageError,
    MessageTooLarge,
    PayloadError,
    StoreError,
    TopicUnavailable,
)
from flowkit.graph import NodeSpec
from flowkit.messages import VERSION, AskRun, CancelRun, StreamMoved, encode, headers_of
from flowkit.protocols import Bus, Clock, Message, Place, Store, TopicSpec
from flowkit.task import Mark, NodeRecord, Task

logger = logging.getLogger(__name__)

MANY_PARENTS = 200
"""A node with more parents than this reads their results from the store."""
HELD_OFF_SEC = 5.0
"""Pause before the next message to a topic that failed while the bus answered."""

_Command = tuple[int, int, int, str, int]
"""A command to send: the node, the attempt, how often it was handed back before, the topic, and the
number of its message.
"""


@dataclass(slots=True)
class _Sending:
    """Messages that are being sent, and their outcomes by number."""

    messages: Sequence[Message]
    places: dict[int, Place | None] = field(default_factory=dict)
    refused: dict[int, MessageError | PayloadError] = field(default_factory=dict)


class Outbox:
    """Turns effects into messages and sends them. An effect whose message cannot be sent stays
    recorded, and is checked later like a message that may be lost.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        store: Store,
        clock: Clock,
        config: CoordinatorConfig,
        processor: EventProcessor,
        commands: CommandWatch,
    ) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._config = config
        self._processor = processor
        self._commands = commands
        self._topics: dict[str, str] = {}
        self._existing: set[str] = set()
        self._held_off: dict[str, float] = {}
        """Topics that failed, and when to try them again."""
        self._notices = notices_of(clock)

    async def carry_out(
        self, effects: Sequence[TaskEffects]
    ) -> list[tuple[CachedTask, CallFunction | EvaluateCondition | SendCancel]]:
        """Send the messages of the effects in one call, and return the effects that the coordinator
        carries out itself.
        """
        messages: list[Message] = []
        owners: list[str] = []
        sent: list[tuple[CachedTask, list[_Command]]] = []
        own: list[tuple[CachedTask, CallFunction | EvaluateCondition | SendCancel]] = []
        await withdraw(
            self._store.artifacts,
            ((todo.task, todo.effects) for todo in effects),
            self._clock.now(),
        )
        for todo in effects:
            held = todo.cached
            commands: list[_Command] = []
            for effect in todo.effects:
                if isinstance(effect, CallFunction | EvaluateCondition | SendCancel):
                    own.append((held, effect))
                try:
                    message = await self._message(held, effect, commands, len(messages))
                except (BusError, StoreError):
                    raise
                except Exception as error:
                    # The fault of one task must not hold up the messages of the others.
                    await self._processor.quarantine(held.task.task_id, error)
                    continue
                if message is not None:
                    messages.append(message)
                    owners.append(held.task.task_id)
            if commands:
                sent.append((held, commands))
        if messages:
            places = await self._publish(messages, owners)
            self._note(sent, places)
        return own

    async def _message(
        self, held: CachedTask, effect: Effect, commands: list[_Command], number: int
    ) -> Message | None:
        """Return the message of an effect, or None if there is nothing to send. Add a command to
        ``commands``; ``number`` is the number of its message.
        """
        task = held.task
        match effect:
            case SendCommand(index, attempt):
                record = task.records.get(index)
                message = await self._command(task, index, attempt)
                if record is None or message is None:
                    return None
                if message.topic in self._existing or await self._ensure(message.topic):
                    commands.append((index, attempt, record.handovers, message.topic, number))
                    return message
                self._commands.check(held, index, message.topic)
            case CheckCommand(index, attempt):
                self._commands.check(held, index, self._topic(task.spec.plan.nodes[index].type))
            case AskWorker(index, attempt, token, worker_id):
                ask = AskRun(
                    task_id=task.task_id,
                    index=index,
                    attempt=attempt,
                    token=token,
                    worker_id=worker_id,
                )
                return self._control(task, ask)
            case SendCancel(index, attempt, token, reason):
                reason = reason[:MAX_ERROR_CHARS]
                return self._control(
                    task,
                    CancelRun(
                        task_id=task.task_id,
                        index=index,
                        attempt=attempt,
                        token=token,
                        reason=reason,
                    ),
                )
            case TellReaders(index, generation):
                node_id = task.spec.plan.ids[index]
                return self._control(
                    task,
                    StreamMoved(
                        task_id=task.task_id, node_id=node_id, generation=generation, ended=True
                    ),
                )
        return None

    def _note(
        self, sent: list[tuple[CachedTask, list[_Command]]], places: Mapping[int, Place | None]
    ) -> None:
        for held, commands in sent:
            found = []
            topics = []
            for index, attempt, handovers, topic, number in commands:
                if number in places:
                    found.append(SentCommand(index, attempt, handovers, places[number]))
                    topics.append(topic)
                else:
                    self._commands.check(held, index, topic, again=True)
            if found:
                self._processor.apply_deferred(held, CommandsSent(found))
                self._commands.sent(held, topics, found)

    async def _publish(
        self, messages: Sequence[Message], owners: Sequence[str]
    ) -> dict[int, Place | None]:
        """Send the messages of each topic in a call of their own, and return the place of each by
        its number.

        Messages that are not confirmed are left out. ``owners`` are the tasks of the messages; a
        task whose message is refused is quarantined.
        """
        by_topic: dict[str, list[int]] = {}
        for number, message in enumerate(messages):
            by_topic.setdefault(message.topic, []).append(number)
        sending = _Sending(messages)
        if len(by_topic) == 1:
            for topic, numbers in by_topic.items():
                await self._publish_topic(topic, numbers, sending)
        else:
            async with anyio.create_task_group() as group:
                for topic, numbers in by_topic.items():
                    group.start_soon(self._publish_topic, topic, numbers, sending)
        for number, error in sending.refused.items():
            await self._processor.quarantine(owners[number], error)
        return sending.places

    async def _publish_topic(self, topic: str, numbers: Sequence[int], sending: _Sending) -> None:
        """Send the messages of one topic, and retry while the bus is unavailable. A topic that
        fails while the bus answers is left for later.
        """
        if self._is_held_off(topic):
            return
        config = self._config

        def waits(error: Exception) -> bool:
            return (
                isinstance(error, BusError)
                and not isinstance(error, TopicUnavailable)
                and not sending.places
            )

        def log(error: Exception) -> None:
            self._notices.trouble(
                logger,
                "publish",
                "Messages are not confirmed by the bus",
                error,
                action="publish_failed",
            )

        try:
            places = await retry(
                lambda: self._bus.publish([sending.messages[number] for number in numbers]),
                on=waits,
                sleep=self._clock.sleep,
                backoff=Backoff(
                    first_sec=config.outbox_backoff_min_ms / 1000,
                    longest_sec=config.outbox_backoff_max_ms / 1000,
                ),
                max_calls=config.outbox_max_retry + 1,
                on_retry=log,
            )
        except (MessageError, PayloadError) as error:
            await self._publish_apart(topic, numbers, sending, error)
        except BusError as error:
            if waits(error):
                log(error)
            else:
                self._hold_off(topic, error)
        else:
            sending.places.update(zip(numbers, places, strict=True))
            self._notices.over(logger, "publish")
            self._notices.over(logger, ("topic", topic))

    async def _publish_apart(
        self,
        topic: str,
        numbers: Sequence[int],
        sending: _Sending,
        error: MessageError | PayloadError,
    ) -> None:
        """Send messages in halves, because one of them is refused. Halving isolates that one and
        records it, and the others are sent.
        """
        if len(numbers) == 1:
            sending.refused[numbers[0]] = error
            return
        half = len(numbers) // 2
        await self._publish_topic(topic, numbers[:half], sending)
        await self._publish_topic(topic, numbers[half:], sending)

    async def _ensure(self, topic: str) -> bool:
        """Create a topic if it is missing; return whether it can be used. Commands for a topic that
        cannot be created wait, and delay no others.
        """
        if self._is_held_off(topic):
            return False
        try:
            await self._bus.ensure_topics([TopicSpec(topic)])
        except BusUnavailable:
            return True
        except BusError as error:
            self._hold_off(topic, error)
            return False
        self._existing.add(topic)
        return True

    def _is_held_off(self, topic: str) -> bool:
        return self._held_off.get(topic, 0) > self._clock.monotonic()

    def _hold_off(self, topic: str, error: BusError) -> None:
        """Send nothing to a topic for a while."""
        self._notices.trouble(
            logger,
            ("topic", topic),
            f"Messages wait for topic {topic}",
            error,
            action="topic_unavailable",
        )
        self._existing.discard(topic)
        self._held_off[topic] = self._clock.monotonic() + HELD_OFF_SEC

    def _topic(self, role: str) -> str:
        topic = self._topics.get(role)
        if topic is None:
            topic = self._topics[role] = self._config.command_topic(role)
        return topic

    def _control(self, task: Task, message: CancelRun | AskRun | StreamMoved) -> Message:
        return Message(
            self._config.control_topic, encode(message), task.task_id, headers_of(task.spec.trace)
        )

    async def _command(self, task: Task, index: int, attempt: int) -> Message | None:
        """Return the command of a node, or None if the attempt is not waiting for one any more."""
        record = task.records.get(index)
        if record is None or record.attempt != attempt or task.marks[index] != Mark.ISSUED:
            return None
        plan = task.spec.plan
        node = plan.nodes[index]
        edges = plan.parents[index]
        parents = [edge.node for edge in edges]
        data = None
        sources = None
        if len(parents) <= MANY_PARENTS:
            streams = plan.sources[index]
            sources = (
                sources_from(task, streams, await records_of(self._store, task, streams))
                if streams
                else ()
            )
            data = {
                "io": {
                    name: _plain(value)
                    for name, value in node.io.__dict__.items()
                    if name in node.io.model_fields_set
                },
                "params": task.spec.params,
                "vars": task.vars,
                "results": await results_of(self._store, task, parents) if parents else {},
                "streams": any(edge.streams for edge in edges),
            }
            if errors := await errors_of(self._store, task, parents):
                data["errors"] = errors
        # The fields of a RunNode, without the model: it would be built only to be encoded, and the
        # reader validates it.
        command: dict[str, Any] = {
            "kind": "run_node",
            "v": VERSION,
            "task_id": task.task_id,
            "index": index,
            "attempt": attempt,
            "token": task.spec.token(index, attempt, record.handovers),
            "node_id": node.node_id,
            "role": node.type,
            "generation": record.generation,
            "priority": task.spec.priority + node.priority,
            "resumed": record.handovers > 0,
            "data": data,
            "sources": sources,
            "streamed": plan.streamed[index],
            "progress": record.progress,
        }
        command.update(_failure_fields(node, record))
        most = self._bus.max_message_bytes
        try:
            value = encode(
                command, limit=most if data is None else min(self._config.inline_limit_bytes, most)
            )
        except MessageTooLarge:
            if data is None:
                raise
            command["data"] = None
            value = encode(command, limit=most)
        key = task.task_id if len(plan.nodes) == 1 else f"{task.task_id}.{index}"
        return Message(self._topic(node.type), value, key, headers_of(task.spec.trace))


def _failure_fields(node: NodeSpec, record: NodeRecord) -> dict[str, Any]:
    """Return the fields of a command on retries and failures that differ from the defaults."""
    fields: dict[str, Any] = {}
    if node.retry_policy.model_fields_set:
        fields["retry_policy"] = node.retry_policy.model_dump(exclude_unset=True)
        if node.retry_policy.budget_sec is not None:
            fields["first_issued_at"] = record.first_issued_at
    if record.attempt != record.first_attempt:
        fields["earlier_attempts"] = record.attempt - record.first_attempt
    if record.retries is not None:
        fields["retries"] = record.retries
    if node.on_batch_failure != "fail":
        fields["on_batch_failure"] = node.on_batch_failure
    if node.timeouts.heartbeat_sec is not None:
        fields["heartbeat_sec"] = node.timeouts.heartbeat_sec
    return fields


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else value
