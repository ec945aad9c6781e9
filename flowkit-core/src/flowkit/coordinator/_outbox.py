"""The outbox: it sends commands, cancellations and hints to the bus."""

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, get_args

import anyio

from flowkit._engine import (
    AskKey,
    AskWorker,
    CallFunction,
    CheckCommand,
    CollectMap,
    CommandsSent,
    Effect,
    EndSegments,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    NameKey,
    OpenMap,
    PublishChanges,
    ReadArtifacts,
    ReadEnds,
    ReturnKey,
    SendCancel,
    SendCommand,
    SentCommand,
    TellParent,
    TellReaders,
    WithdrawCommand,
    expected_readers,
    nodes_read,
    promised_nodes,
    sources_of,
)
from flowkit._records.claims import withdraw
from flowkit._records.queries import errors_of, records_of, results_of, sources_from
from flowkit._runtime.retries import Backoff, notices_of, retry
from flowkit._tasks.cached_tasks import CachedTask, TaskEffects
from flowkit._tasks.event_processor import EventProcessor
from flowkit._tasks.run_inputs import (
    context_of,
    expression_data,
    params_key,
    parents_seen,
)
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
from flowkit.graph._expanded_plan import is_shard, number_of, stored_by
from flowkit.graph._nodes_read import input_needed_at_once
from flowkit.messages import (
    VERSION,
    AskRun,
    CancelRun,
    ChildEnded,
    StreamMoved,
    encode,
    headers_of,
)
from flowkit.messages import EndSegments as EndSegmentsMessage
from flowkit.protocols import Bus, Clock, Message, Place, Store, TopicSpec
from flowkit.task import Mark, NodeRecord, Task

logger = logging.getLogger(__name__)

MANY_PARENTS = 200
"""A node with more parents than this, or whose expressions read more nodes, reads their results
from the store, if its handler takes them.
"""
OwnEffect = (
    CallFunction
    | EvaluateArguments
    | EvaluateCondition
    | EvaluateOutput
    | OpenMap
    | ReadArtifacts
    | CollectMap
    | ReadEnds
    | AskKey
    | NameKey
    | ReturnKey
    | WithdrawCommand
    | SendCancel
    | PublishChanges
)
"""Effects that a coordinator carries out itself."""
_OWN = frozenset(get_args(OwnEffect))
_SENT = frozenset(
    {SendCommand, CheckCommand, AskWorker, SendCancel, EndSegments, TellReaders, TellParent}
)
"""Effects that need messages."""
HELD_OFF_SEC = 5.0
"""Pause before the next message to a topic that failed while the bus answered."""


@dataclass(slots=True)
class _Outgoing:
    """A message that is sent for a task, and the outcome."""

    held: CachedTask
    message: Message
    is_sent: bool = False
    place: Place | None = None
    """Its place on the bus, if it is sent and the bus knows the place."""
    refusal: MessageError | PayloadError | None = None


@dataclass(slots=True, kw_only=True)
class _OutgoingCommand(_Outgoing):
    """A command that is sent to a worker."""

    index: int
    attempt: int
    handovers: int
    """Number of times that the attempt was handed back before."""
    carried: int
    """Number of other nodes that the command carries."""


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
        self._existing: set[str] = set()
        self._held_off: dict[str, float] = {}
        """Topics that failed, and when to try them again."""
        self._notices = notices_of(clock)

    async def carry_out(
        self, effects: Sequence[TaskEffects], *, notified: Container[str] = ()
    ) -> list[tuple[CachedTask, OwnEffect]]:
        """Send the messages of the effects in one call, and return the effects that the coordinator
        carries out itself. It has ``notified`` these parents of the ends of their child tasks, so
        they need no messages.
        """
        own = [
            (todo.cached, cast("OwnEffect", effect))
            for todo in effects
            for effect in todo.effects
            if effect.__class__ in _OWN
        ]
        if own:
            changes = ((todo.cached.task, todo.effects) for todo in effects)
            await withdraw(self._store.artifacts, changes, self._clock.now())
        outgoing: list[_Outgoing] = []
        for todo in effects:
            for effect in todo.effects:
                if effect.__class__ not in _SENT:
                    continue
                try:
                    one = await self._outgoing(todo.cached, effect, notified)
                except (BusError, StoreError):
                    raise
                except Exception as error:
                    # The fault of one task must not hold up the messages of the others.
                    await self._processor.quarantine(todo.cached.task.task_id, error)
                    continue
                if one is not None:
                    outgoing.append(one)
        if outgoing:
            await self._publish(outgoing)
            self._note(outgoing)
        return own

    async def _outgoing(
        self, held: CachedTask, effect: Effect, notified: Container[str]
    ) -> _Outgoing | None:
        """Return the message of an effect, or None if there is nothing to send."""
        task = held.task
        topic = self._config.control_topic
        message: CancelRun | AskRun | StreamMoved | ChildEnded | EndSegmentsMessage
        match effect:
            case SendCommand(index, attempt, handovers):
                record = task.records.get(index)
                if record is None or task.marks[index] != Mark.ISSUED:
                    return None
                # The task in memory may be ahead of the commit that this effect follows.
                if (record.attempt, record.handovers) != (attempt, handovers):
                    return None
                command, carried = await self._command(task, index, record)
                if command.topic in self._existing or await self._ensure(command.topic):
                    return _OutgoingCommand(
                        held,
                        command,
                        index=index,
                        attempt=attempt,
                        handovers=handovers,
                        carried=carried,
                    )
                self._commands.check(held, index, command.topic)
                return None
            case CheckCommand(index, attempt):
                role = task.spec.plan.nodes[index].type
                self._commands.check(held, index, self._config.command_topic(role))
                return None
            case AskWorker(index, attempt, token, worker_id):
                message = AskRun(
                    task_id=task.task_id,
                    index=index,
                    attempt=attempt,
                    token=token,
                    worker_id=worker_id,
                )
            case SendCancel(index, attempt, token, reason):
                message = CancelRun(
                    task_id=task.task_id,
                    index=index,
                    attempt=attempt,
                    token=token,
                    reason=reason[:MAX_ERROR_CHARS],
                )
            case EndSegments():
                message = EndSegmentsMessage(task_id=task.task_id)
            case TellReaders(index, generation):
                message = StreamMoved(
                    task_id=task.task_id,
                    node_id=task.spec.plan.ids[index],
                    generation=generation,
                    ended=True,
                )
            case TellParent() if (
                parent := task.spec.parent
            ) is not None and parent.task_id not in notified:
                topic = self._config.events_topic
                message = ChildEnded(task_id=parent.task_id, index=parent.index)
            case _:
                return None
        headers = headers_of(task.spec.trace)
        return _Outgoing(held, Message(topic, encode(message), message.task_id, headers))

    def _note(self, outgoing: Sequence[_Outgoing]) -> None:
        """Record which commands are on the bus, and let the others be checked."""
        sent: dict[int, list[_OutgoingCommand]] = {}
        for one in outgoing:
            if not isinstance(one, _OutgoingCommand):
                continue
            if one.is_sent:
                sent.setdefault(id(one.held), []).append(one)
            else:
                self._commands.check(one.held, one.index, one.message.topic, again=True)
        for of_task in sent.values():
            held, commands, topics = of_task[0].held, [], []
            for one in of_task:
                commands.append(
                    SentCommand(one.index, one.attempt, one.handovers, one.place, one.carried)
                )
                topics.append(one.message.topic)
            self._processor.apply_deferred(held, CommandsSent(commands))
            self._commands.sent(held, topics, commands)

    async def _publish(self, outgoing: Sequence[_Outgoing]) -> None:
        """Send the messages of each topic in a call of their own, and note the outcome of each.
        Quarantine the tasks whose messages are refused.
        """
        by_topic: dict[str, list[_Outgoing]] = {}
        for one in outgoing:
            by_topic.setdefault(one.message.topic, []).append(one)
        if len(by_topic) == 1:
            for topic, some in by_topic.items():
                await self._publish_topic(topic, some, outgoing)
        else:
            async with anyio.create_task_group() as group:
                for topic, some in by_topic.items():
                    group.start_soon(self._publish_topic, topic, some, outgoing)
        for one in outgoing:
            if one.refusal is not None:
                await self._processor.quarantine(one.held.task.task_id, one.refusal)

    async def _publish_topic(
        self, topic: str, some: Sequence[_Outgoing], every: Sequence[_Outgoing]
    ) -> None:
        """Send the messages of one topic, and retry while the bus is unavailable. If another one of
        ``every`` message was sent, the bus answers: then a topic that fails is left for later.
        """
        if self._held_off and self._is_held_off(topic):
            return
        config = self._config

        def waits(error: Exception) -> bool:
            return (
                isinstance(error, BusError)
                and not isinstance(error, TopicUnavailable)
                and not any(one.is_sent for one in every)
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
                partial(self._bus.publish, [one.message for one in some]),
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
            await self._publish_apart(topic, some, every, error)
        except BusError as error:
            if waits(error):
                log(error)
            else:
                self._hold_off(topic, error)
        else:
            for one, place in zip(some, places, strict=True):
                one.is_sent, one.place = True, place
            if self._notices.open:
                self._notices.over(logger, "publish")
                self._notices.over(logger, ("topic", topic))

    async def _publish_apart(
        self,
        topic: str,
        some: Sequence[_Outgoing],
        every: Sequence[_Outgoing],
        error: MessageError | PayloadError,
    ) -> None:
        """Send messages in halves, because one of them is refused. Halving isolates that one and
        records it, and the others are sent.
        """
        if len(some) == 1:
            some[0].refusal = error
            return
        half = len(some) // 2
        await self._publish_topic(topic, some[:half], every)
        await self._publish_topic(topic, some[half:], every)

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

    async def _command(self, task: Task, index: int, record: NodeRecord) -> tuple[Message, int]:
        """Return the command of a node that is issued, and the number of other nodes in it."""
        task_id, plan = task.spec.task_id, task.spec.plan
        node = plan.nodes[index]
        topic = self._config.command_topic(node.type)
        parents, reads_streams = plan.read_by(index), False
        for edge in plan.parents[index]:
            reads_streams = reads_streams or edge.streams
        seen = parents if index < plan.size else parents_seen(task, index)
        data: dict[str, Any] | None = None
        sources = None
        if len(parents) <= MANY_PARENTS:
            streams = sources_of(task, index)
            sources = (
                sources_from(task, streams, await records_of(self._store, task, streams))
                if streams
                else ()
            )
            data = _run_data(task, node, streams=reads_streams)
            if seen:
                data["results"] = await results_of(self._store, task, seen)
            if index >= plan.size and (key := params_key(task.spec)):
                data |= {"params": {}, "params_key": key}
            if parents and (errors := await errors_of(self._store, task, parents)):
                data["errors"] = errors
            if index in plan.computed:
                data = await self._with_expressions(task, index, data)
        elif index < plan.size and index not in plan.computed:
            data = _run_data(task, node, streams=reads_streams)
            data["results_apart"] = True
        # The fields of a RunNode, without the model: it would be built only to be encoded, and the
        # reader validates it.
        command: dict[str, Any] = {
            "kind": "run_node",
            "v": VERSION,
            "task_id": task_id,
            "index": index,
            "attempt": record.attempt,
            "token": task.spec.current_token(index, record),
            "node_id": node.node_id if index < plan.size else plan.ids[index],
            "role": node.type,
            "generation": record.generation,
            "priority": task.spec.priority + node.priority,
            "resumed": record.handovers > 0,
            "data": data,
            "sources": sources,
            "streamed": plan.streamed[index],
            "readers": expected_readers(task, index) if plan.streamed[index] else {},
            "mapped": stored_by(plan, index) in plan.map_sources.values(),
            "progress": record.progress,
        }
        if node.rate_limit is not None:
            command["rated"] = True
        if is_shard(plan, index):
            command["shard"] = number_of(plan, index)
        command.update(_failure_fields(node))
        command.update(_earlier_attempts(node, record))
        if task.spec.is_exclusive(index):
            command["exclusive"] = True
        if data is not None and (segment := await self._segment(task, index, command)) is not None:
            command["segment"] = segment
        value = self._encoded(command)
        key = task_id if len(plan.nodes) == 1 else f"{task_id}.{index}"
        segment = command.get("segment")
        carried = 0 if segment is None else len(segment["nodes"])
        return Message(topic, value, key, headers_of(task.spec.trace)), carried

    def _encoded(self, command: dict[str, Any]) -> bytes:
        """Return the bytes of a command: without its segment if it is too large, then without the
        data of its node.
        """
        most = self._bus.max_message_bytes
        for left_out in (("segment",), ("data", "sources")):
            if command.get(left_out[0]) is None:
                continue
            try:
                return encode(command, limit=min(self._config.inline_limit_bytes, most))
            except MessageTooLarge:
                command.update(dict.fromkeys(left_out))
        return encode(command, limit=most)

    async def _segment(
        self, task: Task, index: int, command: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return the nodes that the worker may run after this one, or None if there are none. On a
        bus that does not keep the reports of a task in order, there are none.
        """
        mode = task.spec.plan.segments or self._config.segments
        if mode == "off" or not self._bus.key_affinity:
            return None
        nodes, token = [], command["token"]
        for after in promised_nodes(task, index):
            token = task.spec.token_after(token, after, 1, 0)
            nodes.append(_node_of_segment(task, after, token))
        if not nodes:
            return None
        segment: dict[str, Any] = {"nodes": nodes, "eager": mode == "eager"}
        if any("reads" in node for node in nodes):
            segment["expressions"] = await expression_data(self._store, task, index, {}, {})
        return segment

    async def _with_expressions(
        self, task: Task, index: int, data: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return the data of a command with what the expressions of the node read; None if that is
        much.
        """
        needed = input_needed_at_once(task.spec.plan, index)
        if needed is None or any(len(nodes) > MANY_PARENTS for nodes in needed.values()):
            return None
        context = await context_of(self._store, task, index, needed)
        about = await expression_data(self._store, task, index, needed, context["results"])
        return data | context | {"expressions": about}


def _node_of_segment(task: Task, index: int, token: str) -> dict[str, Any]:
    """Return the fields of a :class:`~flowkit.messages.SegmentNode`."""
    plan, record = task.spec.plan, task.record(index)
    node = plan.nodes[index]
    fields: dict[str, Any] = {
        "index": index,
        "token": token,
        "node_id": node.node_id,
        "role": node.type,
        "generation": record.generation,
        "io": _given_input(node),
    }
    fields.update(_failure_fields(node))
    if index in plan.computed:
        fields["reads"] = [plan.ids[one] for one in nodes_read(plan, index)]
    return fields


def _run_data(task: Task, node: NodeSpec, *, streams: bool) -> dict[str, Any]:
    """Return the data that a node sees, without results."""
    return {
        "io": _given_input(node),
        "params": task.spec.params,
        "vars": task.vars,
        "results": {},
        "streams": streams,
    }


def _given_input(node: NodeSpec) -> dict[str, Any]:
    given = node.io.model_fields_set
    return {name: _plain(value) for name, value in node.io.__dict__.items() if name in given}


def _failure_fields(node: NodeSpec) -> dict[str, Any]:
    """Return the fields of a node on retries and failures that differ from the defaults."""
    fields: dict[str, Any] = {}
    if node.retry_policy.model_fields_set:
        fields["retry_policy"] = node.retry_policy.model_dump(exclude_unset=True)
    if node.on_batch_failure != "fail":
        fields["on_batch_failure"] = node.on_batch_failure
    if node.timeouts.heartbeat_sec is not None:
        fields["heartbeat_sec"] = node.timeouts.heartbeat_sec
    return fields


def _earlier_attempts(node: NodeSpec, record: NodeRecord) -> dict[str, Any]:
    """Return the fields of a command on earlier attempts that differ from the defaults."""
    fields: dict[str, Any] = {}
    if node.retry_policy.budget_sec is not None:
        fields["first_issued_at"] = record.first_issued_at
    if record.attempt != record.first_attempt:
        fields["earlier_attempts"] = record.attempt - record.first_attempt
    if record.retries is not None:
        fields["retries"] = record.retries
    return fields


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else value
