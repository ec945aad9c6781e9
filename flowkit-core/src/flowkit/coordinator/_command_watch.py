"""Which commands will not reach a worker any more, as told by how far the bus is; never by how long
they have waited.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import anyio

from flowkit._records.task_records import Sent
from flowkit._runtime.outage_notices import notices_of
from flowkit._tasks.event_processor import EventProcessor, Held
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._stalled_partitions import Standstills
from flowkit.errors import BusError, TopicUnavailable
from flowkit.protocols import Bus, Clock, Place
from flowkit.task import Mark, NodeRecord

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500
"""Tasks whose commands are sent again in one go."""
UNKNOWN_SEC = 30.0
"""A command is sent again when nobody has started it for this long and the bus does not know where
it is.
"""
LONGEST_PAUSE_SEC = 3600.0
LONGEST_PAUSE_WITHOUT_REPLAY_SEC = 60.0
"""A new group receives nothing that was sent before it existed, so its first worker waits for at
most this long.
"""

Key = tuple[str, tuple[int, int, int]]
"""A task; of it the node, the attempt, how often it was handed back before."""
Outstanding = Mapping[int, tuple[int, int]]
"""Per partition the first position that was not acknowledged, and the end."""
Answers = Mapping[str, Outstanding | None]
"""By topic; None where the bus does not know."""
Waiting = tuple[int, Key, float]
"""A command in its partition: its position, and when it was sent."""
Ends = Mapping[int, int]
Resend = Callable[[Mapping[str, Sequence[Sent]]], Awaitable[None]]


@dataclass(slots=True)
class Doubt:
    """A command that nobody has begun as far as is known here, and that may not come to anybody any
    more.

    Where its place is not known it may be anywhere below ``commands``, the ends of its topic when
    somebody first looked. Once the topic is past it, somebody may have begun it and told so: that
    report is below ``reports``. Only when that has been read as well and the command is still not
    begun it is lost. So neither a slow worker nor a slow coordinator makes a command look lost.

    Where the bus does not know how far a group is, only time can tell: ``since`` is when the
    command was sent, or first looked after.
    """

    topic: str
    place: Place | None
    since: float
    commands: Ends | None = None
    reports: Ends | None = None


class CommandWatch:
    """Follows the commands that were sent from here until they are begun, and those that somebody
    is to look after.
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
        self._young: list[tuple[str, Sequence[str], Sequence[Sent], float]] = []
        """What was sent since the last look: most of it is begun before the next."""
        self._waiting: dict[str, dict[int, deque[Waiting]]] = {}
        """What waits in its topic, by partition, in the order in which it was sent."""
        self._standstills = Standstills()
        self._sent_again: dict[Key, float] = {}
        """When lost commands were last sent from here."""
        self._doubts: dict[Key, Doubt] = {}
        self._something = anyio.Event()
        self._notices = notices_of(clock)
        self._failed: set[str] = set()
        """Topics that the bus said nothing of when they were asked for last."""

    def sent(self, held: Held, topics: Sequence[str], commands: Sequence[Sent]) -> None:
        """These commands of a task are on the bus."""
        self._young.append((held.task.task_id, topics, commands, self._clock.monotonic()))
        if self._doubts:
            for index, attempt, handovers, _ in commands:
                self._doubts.pop((held.task.task_id, (index, attempt, handovers)), None)
        self._something.set()

    def check(self, held: Held, index: int, topic: str, *, anew: bool = False) -> None:
        """See whether a node's command is still to come. ``anew``: it may have been sent just now,
        whatever was known before.
        """
        record = held.task.records.get(index)
        if record is None:
            return
        key = held.task.task_id, (index, record.attempt, record.handovers)
        place = record.place if record.sent else None
        known = self._doubts.get(key)
        if anew or known is None or known.place != place:
            since = self._clock.monotonic() - (self._clock.now() - record.issued_at)
            self._doubts[key] = Doubt(topic, place, self._sent_again.get(key, since))
            self._something.set()

    async def run(self, resend: Resend) -> None:
        """Look now and then, as long as there is something to look after, and have what is lost
        sent again.
        """
        while True:
            if not (self._young or self._waiting or self._doubts):
                self._something = anyio.Event()
                await self._something.wait()
            await self._clock.sleep(self._config.command_check_sec)
            try:
                lost = await self.look()
            except BusError as error:
                self._notices.trouble(
                    logger,
                    "outstanding",
                    "Commands cannot be compared with the bus",
                    error,
                    action="bus_unavailable",
                )
                continue
            self._notices.over(logger, "outstanding")
            if lost:
                await self._give_out(lost, resend)

    async def _give_out(self, lost: Mapping[str, list[Sent]], resend: Resend) -> None:
        for task_ids in _pages(list(lost)):
            keys = [(task_id, command[:3]) for task_id in task_ids for command in lost[task_id]]
            doubts = {key: self._doubts.pop(key) for key in keys if key in self._doubts}
            try:
                await resend({task_id: lost[task_id] for task_id in task_ids})
            except BaseException:
                self._doubts = doubts | self._doubts
                raise
            self._sent_again |= dict.fromkeys(keys, self._clock.monotonic())

    async def look(self) -> dict[str, list[Sent]]:
        """Compare with the bus, and return the commands that are lost, by task."""
        self._forget_what_began()
        known = list(self._doubts)
        topics = {*self._waiting, *(doubt.topic for doubt in self._doubts.values())}
        try:
            found = await self._outstanding(topics)
        except BusError:
            # Nothing grows older meanwhile: what was begun must not gather.
            self._young = [sent for sent in self._young if self._any_to_begin(*sent)]
            raise
        for topic, outstanding in found.items():
            if outstanding is not None:
                self._standstills.note(topic, outstanding, self._clock.monotonic())
            known += self._sort_out(topic, outstanding)
        self._grow_older()
        # What came up meanwhile may be younger than what was found.
        late = [
            key
            for key in known
            if key in self._doubts and self._is_past(key, self._doubts[key], found)
        ]
        lost: dict[str, list[Sent]] = {}
        if late:
            # After the commands: whatever was begun before them has told so before this.
            reports = await self._bus.outstanding(
                self._config.events_topic, self._config.coordinators_group
            )
            for key in late:
                doubt = self._doubts.get(key)
                if doubt is None:
                    continue
                if self._is_read(key, doubt, reports) and self._is_due(key, doubt):
                    lost.setdefault(key[0], []).append((*key[1], doubt.place))
        return lost

    def _is_read(self, key: Key, doubt: Doubt, reports: Outstanding | None) -> bool:
        """Whether the report of a command's start would have been read by now."""
        if reports is None:
            return self._has_waited(key, doubt.since, UNKNOWN_SEC)
        if doubt.reports is None:
            doubt.reports = _ends(reports)
            return False
        return _all_read(doubt.reports, reports)

    def _is_due(self, key: Key, doubt: Doubt) -> bool:
        """Whether it is time to send a lost command. Without replay it is lost again and again
        until its group exists.
        """
        return self._bus.replay_for_new_groups or self._has_waited(key, doubt.since, 0.0)

    def _has_waited(self, key: Key, since: float, seconds: float) -> bool:
        """Whether that long has passed, and half of the time since the command was issued: the
        pauses between copies double.
        """
        record = self._issued(key)
        age = 0.0 if record is None else self._clock.now() - record.issued_at
        return self._clock.monotonic() - since >= min(
            max(seconds, age / 2), max(seconds, self._longest_pause_sec)
        )

    async def _outstanding(self, topics: Collection[str]) -> dict[str, Outstanding | None]:
        """Ask for each topic, those that failed before last, so that one topic's trouble keeps
        nothing from the others.

        Raises:
            BusError: the bus is out of reach.
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
                    f"Topic {topic} cannot be looked at",
                    error,
                    action="topic_unavailable",
                )
                if not isinstance(error, TopicUnavailable):
                    break
            else:
                self._failed.discard(topic)
                self._notices.over(logger, ("outstanding", topic))
        return found

    def _still_to_begin(self, key: Key) -> bool:
        """Return whether a command is not started, as far as this coordinator knows."""
        return self._issued(key) is not None

    def _issued(self, key: Key) -> NodeRecord | None:
        """Return the record of a command that is not started; None if it is started, or if the task
        is not cached.
        """
        task_id, (index, attempt, handovers) = key
        for held in self._processor.held_of((task_id,)):
            record = held.task.records.get(index)
            if (
                record is not None
                and held.task.marks[index] == Mark.ISSUED
                and (record.attempt, record.handovers) == (attempt, handovers)
            ):
                return record
        return None

    def _forget_what_began(self) -> None:
        for known in (self._doubts, self._sent_again):
            for key in [key for key in known if not self._still_to_begin(key)]:
                del known[key]
        for topic, partitions in list(self._waiting.items()):
            for partition, waiting in list(partitions.items()):
                while waiting and not self._still_to_begin(waiting[0][1]):
                    self._standstills.started(topic, (partition, waiting.popleft()[0]))
                if not waiting:
                    del partitions[partition]
            if not partitions:
                del self._waiting[topic]

    def _any_to_begin(
        self, task_id: str, _: Sequence[str], commands: Sequence[Sent], __: float
    ) -> bool:
        return any(
            self._still_to_begin((task_id, (index, attempt, handovers)))
            for index, attempt, handovers, _ in commands
        )

    def _sort_out(self, topic: str, outstanding: Outstanding | None) -> list[Key]:
        """Doubt those waiting commands that are not delivered any more, and those about which the
        bus knows nothing.
        """
        doubted: list[Key] = []
        for partition, waiting in self._waiting.get(topic, {}).items():
            for position, key, since in [*self._gone(topic, partition, waiting, outstanding)]:
                if self._still_to_begin(key) and key not in self._doubts:
                    self._doubts[key] = Doubt(topic, (partition, position), since)
                    doubted.append(key)
        return doubted

    def _gone(
        self, topic: str, partition: int, waiting: deque[Waiting], outstanding: Outstanding | None
    ) -> Iterator[Waiting]:
        if outstanding is None:
            yield from waiting
            waiting.clear()
            return
        yield from _outside(waiting, *outstanding.get(partition, (0, 0)))
        if waiting and self._standstills.stands(topic, partition, self._clock.monotonic()):
            every, hidden = list(waiting), list[Waiting]()
            waiting.clear()
            for position, key, since in every:
                if not self._still_to_begin(key):
                    self._standstills.started(topic, (partition, position))
                    continue
                is_hidden = self._is_hidden(topic, (partition, position), key, since)
                (hidden if is_hidden else waiting).append((position, key, since))
            yield from hidden

    def _is_hidden(self, topic: str, place: Place, key: Key, since: float) -> bool:
        """Whether a command may have been lost behind a message that has not been acknowledged for
        long.
        """
        patience = self._standstills.patience(topic, place)
        return patience is not None and self._has_waited(key, max(since, patience[0]), patience[1])

    def _grow_older(self) -> None:
        young, self._young = self._young, []
        for task_id, topics, commands, since in young:
            for topic, (index, attempt, handovers, place) in zip(topics, commands, strict=True):
                key = task_id, (index, attempt, handovers)
                if not self._still_to_begin(key):
                    if place is not None:
                        self._standstills.started(topic, place)
                    continue
                if place is None:
                    self._doubts.setdefault(key, Doubt(topic, None, since))
                else:
                    self._waiting.setdefault(topic, {}).setdefault(place[0], deque()).append(
                        (place[1], key, since)
                    )

    def _is_past(self, key: Key, doubt: Doubt, found: Answers) -> bool:
        """Whether a command does not come any more.

        If the bus answers that it may still come, record that it waits, and drop the doubt if its
        place is known.
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
            doubt.commands = _ends(outstanding)
            return False
        else:
            is_past = _all_read(doubt.commands, outstanding)
        if not is_past:
            self._processor.waits(key[0], (*key[1], doubt.place))
        return is_past


def _ends(outstanding: Outstanding) -> Ends:
    return {partition: end for partition, (_, end) in outstanding.items()}


def _all_read(ends: Ends, outstanding: Outstanding) -> bool:
    """Whether everything below these ends was read, or is lost."""
    return all(
        first >= min(ends.get(partition, 0), end) for partition, (first, end) in outstanding.items()
    )


def _outside(waiting: deque[Waiting], first: int, end: int) -> Iterator[Waiting]:
    """Take out what is below the first or above the end, from both ends of what waits."""
    while waiting and not first <= waiting[0][0] < end:
        yield waiting.popleft()
    while waiting and waiting[-1][0] >= end:
        yield waiting.pop()


def _pages(task_ids: list[str]) -> Iterator[list[str]]:
    return (
        task_ids[start : start + MOST_AT_ONCE] for start in range(0, len(task_ids), MOST_AT_ONCE)
    )


__all__ = ["CommandWatch"]
