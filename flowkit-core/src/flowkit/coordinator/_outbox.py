"""Carrying out what was decided: commands, cancellations and hints go to the bus."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flowkit._backoff import Backoff
from flowkit._claims import withdraw
from flowkit.applying import Applier, Held
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._commands import CommandWatch
from flowkit.engine import AskWorker, CallFunction, CheckCommand, Effect, EvaluateCondition, SendCancel, SendCommand, TellReaders
from flowkit.errors import BusError, BusUnavailable, FlowKitError, MessageTooLarge, PayloadError, StoreError
from flowkit.graph import NodeSpec
from flowkit.messages import VERSION, AskRun, CancelRun, StreamMoved, encode, headers_of
from flowkit.protocols import Bus, Clock, Message, Place, Store, TopicSpec
from flowkit.reading import errors_of, records_of, results_of, source_indexes, sources_from
from flowkit.task import Mark, NodeRecord, Task

logger = logging.getLogger(__name__)

MANY_PARENTS = 200
"""A node with more parents than this gets what it needs of them from the store."""
LONGEST_REASON = 4000
MISSING_PAUSE_SEC = 5.0

_Sending = tuple[int, int, int, str, int]
"""A command on its way: the node, the attempt, how often it was handed back before, the topic, the place among the messages."""


class Outbox:
    """Turns effects into messages and sends them. What cannot be sent stays recorded, and is looked after as what may be lost."""

    def __init__(
        self, *, bus: Bus, store: Store, clock: Clock, config: CoordinatorConfig, applier: Applier, commands: CommandWatch
    ) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._config = config
        self._applier = applier
        self._commands = commands
        self._topics: dict[str, str] = {}
        self._existing: set[str] = set()
        self._missing: dict[str, float] = {}
        """Topics that could not be made, and when to try again."""

    async def carry_out(
        self, effects: Sequence[tuple[Held, Sequence[Effect]]]
    ) -> list[tuple[Held, CallFunction | EvaluateCondition | SendCancel]]:
        """Send everything that goes over the bus, in one call, and return what the coordinator is to do itself."""
        messages: list[Message] = []
        sent: list[tuple[Held, list[_Sending]]] = []
        own: list[tuple[Held, CallFunction | EvaluateCondition | SendCancel]] = []
        await withdraw(self._store.artifacts, ((held.task, todo) for held, todo in effects), self._clock.now())
        for held, todo in effects:
            commands: list[_Sending] = []
            for effect in todo:
                match effect:
                    case SendCommand(index, attempt):
                        record = held.task.records.get(index)
                        try:
                            message = await self._command(held.task, index, attempt)
                        except (BusError, StoreError):
                            raise
                        except FlowKitError as error:
                            await self._applier.quarantine(held.task.task_id, error)
                            continue
                        if record is None or message is None:
                            continue
                        if message.topic in self._existing or await self._ensure(message.topic):
                            commands.append((index, attempt, record.handovers, message.topic, len(messages)))
                            messages.append(message)
                        else:
                            self._commands.check(held, index, message.topic)
                    case CheckCommand(index, attempt):
                        self._commands.check(held, index, self._topic(held.task.spec.plan.nodes[index].type))
                    case AskWorker(index, attempt, token, worker_id):
                        ask = AskRun(task_id=held.task.task_id, index=index, attempt=attempt, token=token, worker_id=worker_id)
                        messages.append(self._control(held.task, ask))
                    case CallFunction() | EvaluateCondition():
                        own.append((held, effect))
                    case SendCancel(index, attempt, token, reason):
                        own.append((held, effect))
                        cancel = CancelRun(
                            task_id=held.task.task_id, index=index, attempt=attempt, token=token, reason=reason[:LONGEST_REASON]
                        )
                        messages.append(self._control(held.task, cancel))
                    case TellReaders(index, generation):
                        node_id = held.task.spec.plan.ids[index]
                        hint = StreamMoved(task_id=held.task.task_id, node_id=node_id, generation=generation, ended=True)
                        messages.append(self._control(held.task, hint))
            if commands:
                sent.append((held, commands))
        if messages:
            try:
                places = await self._publish(messages)
            except PayloadError:
                owners = {number: held.task.task_id for held, commands in sent for *_, number in commands}
                places = await self._publish_apart(messages, owners)
            self._note(sent, places)
        return own

    def _note(self, sent: list[tuple[Held, list["_Sending"]]], places: Mapping[int, Place | None]) -> None:
        for held, commands in sent:
            found = []
            topics = []
            for index, attempt, handovers, topic, number in commands:
                if number in places:
                    found.append((index, attempt, handovers, places[number]))
                    topics.append(topic)
                else:
                    self._commands.check(held, index, topic, anew=True)
            if found:
                self._applier.sent(held, found)
                self._commands.sent(held, topics, found)

    async def _publish(self, messages: list[Message]) -> Mapping[int, Place | None]:
        """Where each of the messages is, by its number; nothing if the bus did not confirm them."""
        config = self._config
        backoff = Backoff(first_sec=config.outbox_backoff_min_ms / 1000, longest_sec=config.outbox_backoff_max_ms / 1000)
        retries = config.outbox_max_retry
        for attempt in range(retries + 1):
            try:
                return dict(enumerate(await self._bus.publish(messages)))
            except BusError as error:
                logger.warning("%d messages were not confirmed: %s", len(messages), error, extra={"action": "publish_failed"})
                if attempt < retries:
                    await self._clock.sleep(backoff.next_sec())
        return {}

    async def _publish_apart(self, messages: list[Message], owners: Mapping[int, str]) -> Mapping[int, Place | None]:
        """The same, one by one: a codec does not take one of them. Whose that is is put aside, and the others go on."""
        places: dict[int, Place | None] = {}
        for number, message in enumerate(messages):
            try:
                for place in (await self._publish([message])).values():
                    places[number] = place
            except PayloadError as error:
                await self._applier.quarantine(owners.get(number, message.key), error)
        return places

    async def _ensure(self, topic: str) -> bool:
        """Make a role's topic if it is not there. Commands for one that cannot be made wait, and hold up no others."""
        if self._missing.get(topic, 0) > self._clock.monotonic():
            return False
        try:
            await self._bus.ensure_topics([TopicSpec(topic)])
        except BusUnavailable:
            return True
        except BusError as error:
            logger.warning("Commands wait for topic %s: %s", topic, error, extra={"action": "topic_missing"})
            self._missing[topic] = self._clock.monotonic() + MISSING_PAUSE_SEC
            return False
        self._existing.add(topic)
        return True

    def _topic(self, role: str) -> str:
        topic = self._topics.get(role)
        if topic is None:
            topic = self._topics[role] = self._config.command_topic(role)
        return topic

    def _control(self, task: Task, message: CancelRun | AskRun | StreamMoved) -> Message:
        return Message(self._config.control_topic, encode(message), task.task_id, headers_of(task.spec.trace))

    async def _command(self, task: Task, index: int, attempt: int) -> Message | None:
        """A node's command, or None if the node has moved on since."""
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
            streams = source_indexes(plan, index)
            sources = sources_from(task, streams, await records_of(self._store, task, streams)) if streams else ()
            data = {
                "io": {name: _plain(value) for name, value in node.io.__dict__.items() if name in node.io.model_fields_set},
                "params": task.spec.params,
                "vars": task.vars,
                "results": await results_of(self._store, task, parents) if parents else {},
                "streams": any(edge.streams for edge in edges),
            }
            if errors := await errors_of(self._store, task, parents):
                data["errors"] = errors
        # The fields of a RunNode, without the model around them: it would be made only to be written, and is checked where it is read.
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
        command.update(_about_failing(node, record))
        most = self._bus.max_message_bytes
        try:
            value = encode(command, limit=most if data is None else min(self._config.inline_limit_bytes, most))
        except MessageTooLarge:
            if data is None:
                raise
            command["data"] = None
            value = encode(command, limit=most)
        key = task.task_id if len(plan.nodes) == 1 else f"{task.task_id}.{index}"
        return Message(self._topic(node.type), value, key, headers_of(task.spec.trace))


def _about_failing(node: NodeSpec, record: NodeRecord) -> dict[str, Any]:
    """What a worker is to do about failures, where it is not what it would do anyway."""
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
