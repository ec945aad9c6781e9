"""The watch on commands that were sent: it finds those that are lost on the bus.

It compares commands with the offsets of the bus. Where the bus knows its offsets, a long wait alone
never makes a command lost.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import anyio

from flowkit._engine import CommandWaiting, SentCommand
from flowkit._runtime.retries import notices_of
from flowkit._tasks.cached_tasks import CachedTask
from flowkit._tasks.event_processor import EventProcessor
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._stalled_partitions import Standstills
from flowkit.errors import BusError, TopicUnavailable
from flowkit.protocols import Bus, Clock, Place
from flowkit.task import Mark, NodeRecord

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500
"""Most tasks whose commands are sent again in one call."""
UNKNOWN_SEC = 30.0
"""A command is sent again when no worker has started it for this long and the bus does not know its
place.
"""
LONGEST_PAUSE_SEC = 3600.0
LONGEST_PAUSE_WITHOUT_REPLAY_SEC = 60.0
"""Longest pause between copies of a command on a bus without replay. There a new group receives
nothing that was sent before it existed, so its first worker waits for at most this long.
"""

Key = tuple[str, tuple[int, int, int]]
"""A command: the id of the task; the node, the attempt, and how often it was handed back before."""
Outstanding = Mapping[int, tuple[int, int]]
"""The first position that is not acknowledged, and the end, of each partition."""
Answers = Mapping[str, Outstanding | None]
"""Answers of the bus by topic; None where it does not know."""
Ends = Mapping[int, int]
Resend = Callable[[Mapping[str, Sequence[SentCommand]]], Awaitable[None]]


@dataclass(slots=True)
class _Sent:
    """Commands of a task that were sent together, each to its topic."""

    task_id: str
    topics: Sequence[str]
    commands: Sequence[SentCommand]
    since: float


@dataclass(slots=True)
class Waiting:
    """A command in its partition: its position there, and when it was sent."""

    position: int
    key: Key
    since: float


@dataclass(slots=True)
class Doubt:
    """A command that may be lost: as far as this coordinator knows, no worker has started it.

    If the place of the command is not known, it may be anywhere below ``commands``, the ends of its
    topic at the first check. When the group is past that, a worker may have started the command;
    its report is then below ``reports``. Only if the reports are read up to there and the command
    is still not started, it is lost. So neither a slow worker nor a slow coordinator makes a
    command look lost.

    If the bus does not know the offsets of a group, only time decides: ``since`` is when the
    command was sent, or first checked.
    """

    topic: str
    place: Place | None
    since: float
    commands: Ends | None = None
    reports: Ends | None = None


class CommandWatch:
    """Follows commands until they are started: those that this coordinator sent, and those that it
    was asked to check.
    """

    def __init__(
        self, *, bus: Bus, clock: Clock, config: CoordinatorConfig, processor: EventProcessor
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._config = config
        self._processor = processor
        self._longest_pause_sec = (
            LONGEST_PAUSE_SEC if bus.replay_for_new_groups else LONGEST_PAUSE_WITHOUT_REPLAY_SEC
        )
        self._new: list[_Sent] = []
        """Commands that were sent since the last check. Most are started before the next."""
        self._waiting: dict[str, dict[int, deque[Waiting]]] = {}
        """Commands that wait in their topics, by partition, in the order of sending."""
        self._standstills = Standstills()
        self._sent_again: dict[Key, float] = {}
        """The times at which this coordinator last sent lost commands again."""
        self._doubts: dict[Key, Doubt] = {}
        self._has_commands = anyio.Event()
        self._notices = notices_of(clock)
        self._failed: set[str] = set()
        """Topics for which the last question to the bus failed."""

    def sent(
        self, held: CachedTask, topics: Sequence[str], commands: Sequence[SentCommand]
    ) -> None:
        """Record that these commands of a task are on the bus."""
        task_id = held.task.spec.task_id
        self._new.append(_Sent(task_id, topics, commands, self._clock.monotonic()))
        if self._doubts:
            for command in commands:
                self._doubts.pop((task_id, _number(command)), None)
        self._has_commands.set()

    def check(self, held: CachedTask, index: int, topic: str, *, again: bool = False) -> None:
        """Check whether the command of a node is lost.

        ``again`` restarts a check that is in progress, because the command may have been sent just
        now.
        """
        record = held.task.records.get(index)
        if record is None:
            return
        key = held.task.task_id, (index, record.attempt, record.handovers)
        place = record.place if record.sent else None
        known = self._doubts.get(key)
        if again or known is None or known.place != place:
            since = self._clock.monotonic() - (self._clock.now() - record.issued_at)
            self._doubts[key] = Doubt(topic, place, self._sent_again.get(key, since))
            self._has_commands.set()

    async def run(self, resend: Resend) -> None:
        """Check the commands regularly while there are any, and pass lost ones to ``resend``."""
        while True:
            if not (self._new or self._waiting or self._doubts):
                self._has_commands = anyio.Event()
                await self._has_commands.wait()
            await self._clock.sleep(self._config.command_check_sec)
            try:
                lost = await self.find_lost()
            except BusError as error:
                self._notices.trouble(
                    logger,
                    "outstanding",
                    "Commands cannot be compared with the bus",
                    error,
                    action="bus_unavailable",
                )
                continue
            if self._notices.open:
                self._notices.over(logger, "outstanding")
            if lost:
                await self._resend(lost, resend)

    async def _resend(self, lost: Mapping[str, list[SentCommand]], resend: Resend) -> None:
        for task_ids in _pages(list(lost)):
            keys = [
                (task_id, _number(command)) for task_id in task_ids for command in lost[task_id]
            ]
            doubts = {key: self._doubts.pop(key) for key in keys if key in self._doubts}
            try:
                await resend({task_id: lost[task_id] for task_id in task_ids})
            except BaseException:
                self._doubts = doubts | self._doubts
                raise
            self._sent_again |= dict.fromkeys(keys, self._clock.monotonic())

    async def find_lost(self) -> dict[str, list[SentCommand]]:
        """Compare the commands with the bus, and return the lost ones by task."""
        self._drop_started()
        known = list(self._doubts)
        topics = {*self._waiting, *(doubt.topic for doubt in self._doubts.values())}
        try:
            found = await self._outstanding(topics)
        except BusError:
            # Commands stay new while the bus is away: drop the started ones, or they accumulate.
            self._new = [sent for sent in self._new if self._any_not_started(sent)]
            raise
        for topic, outstanding in found.items():
            if outstanding is not None:
                self._standstills.note(topic, outstanding, self._clock.monotonic())
            known += self._doubt_undelivered(topic, outstanding)
        self._sort_new()
        # Doubts that were added meanwhile may be newer than the answers of the bus.
        late = [
            key
            for key in known
            if key in self._doubts and self._is_past(key, self._doubts[key], found)
        ]
        lost: dict[str, list[SentCommand]] = {}
        if late:
            # Ask after the commands: the report of a start before that answer is below this one.
            reports = await self._bus.outstanding(
                self._config.events_topic, self._config.coordinators_group
            )
            for key in late:
                doubt = self._doubts.get(key)
                if doubt is None:
                    continue
                if self._is_read(key, doubt, reports) and self._is_due(key, doubt):
                    lost.setdefault(key[0], []).append(SentCommand(*key[1], doubt.place))
        return lost

    def _is_read(self, key: Key, doubt: Doubt, reports: Outstanding | None) -> bool:
        """Return whether the report of a command's start would have been read by now."""
        if reports is None:
            return self._has_waited(key, doubt.since, UNKNOWN_SEC)
        if doubt.reports is None:
            doubt.reports = ends_of(reports)
            return False
        return all_read(doubt.reports, reports)

    def _is_due(self, key: Key, doubt: Doubt) -> bool:
        """Return whether it is time to send a lost command again. On a bus without replay each copy
        is lost until its group exists.
        """
        return self._bus.replay_for_new_groups or self._has_waited(key, doubt.since, 0.0)

    def _has_waited(self, key: Key, since: float, seconds: float) -> bool:
        """Return whether these seconds have passed, and half of the time since the command was
        issued: the pauses between copies double.
        """
        record = self._issued(key)
        age = 0.0 if record is None else self._clock.now() - record.issued_at
        return self._clock.monotonic() - since >= min(
            max(seconds, age / 2), max(seconds, self._longest_pause_sec)
        )

    async def _outstanding(self, topics: Collection[str]) -> dict[str, Outstanding | None]:
        """Ask the bus about each topic. Topics that failed before come last, so that they do not
        delay the others.

        Raises:
            BusError: the bus cannot be reached.
        """
        found: dict[str, Outstanding | None] = {}
        for topic in sorted(topics, key=lambda topic: (topic in self._failed, topic)):
            try:
                found[topic] = await self._bus.outstanding(topic, self._config.workers_group)
            except BusError as error:
                self._failed.add(topic)
                if not found and not isinstance(error, TopicUnavailable):
                    raise
                self._notices.trouble(
                    logger,
                    ("outstanding", topic),
                    f"The offsets of topic {topic} cannot be read",
                    error,
                    action="topic_unavailable",
                )
                if not isinstance(error, TopicUnavailable):
                    break
            else:
                self._failed.discard(topic)
                self._notices.over(logger, ("outstanding", topic))
        return found

    def _is_not_started(self, key: Key) -> bool:
        """Return whether a command is not started, as far as this coordinator knows."""
        return self._issued(key) is not None

    def _issued(self, key: Key) -> NodeRecord | None:
        """Return the record of a command that is not started; None if it is started, or if the task
        is not cached.
        """
        task_id, (index, attempt, handovers) = key
        for held in self._processor.find_cached((task_id,)):
            record = held.task.records.get(index)
            if (
                record is not None
                and held.task.marks[index] == Mark.ISSUED
                and (record.attempt, record.handovers) == (attempt, handovers)
            ):
                return record
        return None

    def _drop_started(self) -> None:
        """Drop the commands that are started."""
        for known in (self._doubts, self._sent_again):
            for key in [key for key in known if not self._is_not_started(key)]:
                del known[key]
        for topic, partitions in list(self._waiting.items()):
            for partition, waiting in list(partitions.items()):
                while waiting and not self._is_not_started(waiting[0].key):
                    self._standstills.started(topic, (partition, waiting.popleft().position))
                if not waiting:
                    del partitions[partition]
            if not partitions:
                del self._waiting[topic]

    def _any_not_started(self, sent: _Sent) -> bool:
        return any(
            self._is_not_started((sent.task_id, _number(command))) for command in sent.commands
        )

    def _doubt_undelivered(self, topic: str, outstanding: Outstanding | None) -> list[Key]:
        """Doubt the waiting commands that the bus will not deliver, or about which it knows
        nothing; return them.
        """
        doubted: list[Key] = []
        for partition, waiting in self._waiting.get(topic, {}).items():
            for command in [*self._take_undelivered(topic, partition, waiting, outstanding)]:
                key = command.key
                if self._is_not_started(key) and key not in self._doubts:
                    place = (partition, command.position)
                    self._doubts[key] = Doubt(topic, place, command.since)
                    doubted.append(key)
        return doubted

    def _take_undelivered(
        self, topic: str, partition: int, waiting: deque[Waiting], outstanding: Outstanding | None
    ) -> Iterator[Waiting]:
        """Remove and yield the commands of a partition that the bus will not deliver."""
        if outstanding is None:
            yield from waiting
            waiting.clear()
            return
        yield from _outside(waiting, *outstanding.get(partition, (0, 0)))
        if waiting and self._standstills.stands(topic, partition, self._clock.monotonic()):
            every, hidden = list(waiting), list[Waiting]()
            waiting.clear()
            for command in every:
                place = (partition, command.position)
                if not self._is_not_started(command.key):
                    self._standstills.started(topic, place)
                    continue
                is_hidden = self._is_hidden(topic, place, command.key, command.since)
                (hidden if is_hidden else waiting).append(command)
            yield from hidden

    def _is_hidden(self, topic: str, place: Place, key: Key, since: float) -> bool:
        """Return whether a command may be lost after a message that has not been acknowledged for
        long.
        """
        patience = self._standstills.patience(topic, place)
        return patience is not None and self._has_waited(key, max(since, patience[0]), patience[1])

    def _sort_new(self) -> None:
        """Move new commands that are not started to those that wait, or to the doubts."""
        new, self._new = self._new, []
        for sent in new:
            for topic, command in zip(sent.topics, sent.commands, strict=True):
                key, place = (sent.task_id, _number(command)), command.place
                if not self._is_not_started(key):
                    if place is not None:
                        self._standstills.started(topic, place)
                    continue
                if place is None:
                    self._doubts.setdefault(key, Doubt(topic, None, sent.since))
                else:
                    partition, position = place
                    self._waiting.setdefault(topic, {}).setdefault(partition, deque()).append(
                        Waiting(position, key, sent.since)
                    )

    def _is_past(self, key: Key, doubt: Doubt, found: Answers) -> bool:
        """Return whether the bus will not deliver a command.

        If the bus may still deliver it, record that it waits, and drop the doubt if its place is
        known.
        """
        if doubt.topic not in found:
            return False
        outstanding = found[doubt.topic]
        if outstanding is None:
            is_past = self._has_waited(key, doubt.since, UNKNOWN_SEC)
        elif doubt.place is not None:
            first, end = outstanding.get(doubt.place[0], (0, 0))
            is_past = not first <= doubt.place[1] < end or self._is_hidden(
                doubt.topic, doubt.place, key, doubt.since
            )
            if not is_past:
                del self._doubts[key]
        elif doubt.commands is None:
            doubt.commands = ends_of(outstanding)
            return False
        else:
            is_past = all_read(doubt.commands, outstanding)
        if not is_past:
            for held in self._processor.find_cached((key[0],)):
                waiting = CommandWaiting(SentCommand(*key[1], doubt.place))
                self._processor.apply_deferred(held, waiting)
        return is_past


def _number(command: SentCommand) -> tuple[int, int, int]:
    return command.index, command.attempt, command.handovers


def ends_of(outstanding: Outstanding) -> Ends:
    """Return the end of each partition."""
    return {partition: end for partition, (_, end) in outstanding.items()}


def all_read(ends: Ends, outstanding: Outstanding) -> bool:
    """Return whether everything below these ends was read, or is lost."""
    return all(
        first >= min(ends.get(partition, 0), end) for partition, (first, end) in outstanding.items()
    )


def _outside(waiting: deque[Waiting], first: int, end: int) -> Iterator[Waiting]:
    """Remove and yield commands with positions below ``first`` or not below ``end``."""
    while waiting and not first <= waiting[0].position < end:
        yield waiting.popleft()
    while waiting and waiting[-1].position >= end:
        yield waiting.pop()


def _pages(task_ids: list[str]) -> Iterator[list[str]]:
    return (
        task_ids[start : start + MOST_AT_ONCE] for start in range(0, len(task_ids), MOST_AT_ONCE)
    )


__all__ = ["CommandWatch", "all_read", "ends_of"]
