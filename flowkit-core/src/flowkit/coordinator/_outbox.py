"""Carrying out what was decided: commands, cancellations and hints go to the bus."""

import logging
from collections.abc import Sequence
from typing import Any

from flowkit._backoff import Backoff
from flowkit.applying import Applier, Held
from flowkit.config import CoordinatorConfig
from flowkit.engine import CallFunction, Effect, SendCancel, SendCommand, TellReaders
from flowkit.errors import BusError, BusUnavailable, MessageTooLarge
from flowkit.messages import VERSION, CancelRun, StreamMoved, encode, headers_of
from flowkit.protocols import Bus, Clock, Message, Store, TopicSpec
from flowkit.reading import records_of, results_of, source_indexes, sources_from
from flowkit.task import Mark, Task

logger = logging.getLogger(__name__)

MANY_PARENTS = 200
"""A node with more parents than this gets what it needs of them from the store."""
MISSING_PAUSE_SEC = 5.0


class Outbox:
    """Turns effects into messages and sends them. What cannot be sent stays recorded, and the sweep finds it."""

    def __init__(self, *, bus: Bus, store: Store, clock: Clock, config: CoordinatorConfig, applier: Applier) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._config = config
        self._applier = applier
        self._topics: dict[str, str] = {}
        self._existing: set[str] = set()
        self._missing: dict[str, float] = {}
        """Topics that could not be made, and when to try again."""

    async def carry_out(self, effects: Sequence[tuple[Held, Sequence[Effect]]]) -> list[tuple[Held, CallFunction | SendCancel]]:
        """Send everything that goes over the bus, in one call, and return what the coordinator is to do itself."""
        messages: list[Message] = []
        sent: list[tuple[Held, list[tuple[int, int, int]]]] = []
        own: list[tuple[Held, CallFunction | SendCancel]] = []
        for held, todo in effects:
            commands: list[tuple[int, int, int]] = []
            for effect in todo:
                match effect:
                    case SendCommand(index, attempt):
                        record = held.task.records.get(index)
                        message = await self._command(held.task, index, attempt)
                        if (
                            record is not None
                            and message is not None
                            and (message.topic in self._existing or await self._ensure(message.topic))
                        ):
                            messages.append(message)
                            commands.append((index, attempt, record.handovers))
                    case CallFunction():
                        own.append((held, effect))
                    case SendCancel(index, attempt, token, reason):
                        own.append((held, effect))
                        cancel = CancelRun(task_id=held.task.task_id, index=index, attempt=attempt, token=token, reason=reason)
                        messages.append(self._control(held.task, cancel))
                    case TellReaders(index, generation):
                        node_id = held.task.spec.plan.ids[index]
                        hint = StreamMoved(task_id=held.task.task_id, node_id=node_id, generation=generation, ended=True)
                        messages.append(self._control(held.task, hint))
            if commands:
                sent.append((held, commands))
        if messages and await self._publish(messages):
            for held, commands in sent:
                self._applier.sent(held, commands)
        return own

    async def _publish(self, messages: list[Message]) -> bool:
        config = self._config
        backoff = Backoff(first_sec=config.outbox_backoff_min_ms / 1000, longest_sec=config.outbox_backoff_max_ms / 1000)
        retries = config.outbox_max_retry
        for attempt in range(retries + 1):
            try:
                await self._bus.publish(messages)
                return True
            except BusError as error:
                logger.warning("%d messages were not confirmed: %s", len(messages), error, extra={"action": "publish_failed"})
                if attempt < retries:
                    await self._clock.sleep(backoff.next_sec())
        return False

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

    def _control(self, task: Task, message: CancelRun | StreamMoved) -> Message:
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
            }
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
            "last_attempt": attempt - record.first_attempt >= node.retry_policy.max,
            "permanent_on": node.retry_policy.permanent_on,
            "data": data,
            "sources": sources,
            "streamed": plan.streamed[index],
            "progress": record.progress,
        }
        topic = self._topics.get(node.type)
        if topic is None:
            topic = self._topics[node.type] = self._config.command_topic(node.type)
        value = encode(command)
        if data is not None and len(value) > min(self._config.inline_limit_bytes, self._bus.max_message_bytes):
            command["data"] = None
            value = encode(command)
        if len(value) > self._bus.max_message_bytes:
            raise MessageTooLarge(f"the command of node {node.node_id!r} is {len(value)} bytes")
        key = task.task_id if len(plan.nodes) == 1 else f"{task.task_id}.{index}"
        return Message(topic, value, key, headers_of(task.spec.trace))


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else value
