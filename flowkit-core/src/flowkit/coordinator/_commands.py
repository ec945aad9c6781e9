"""Which commands will not reach a worker any more, as told by how far the bus is; never by how long they have waited."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import anyio

from flowkit.applying import Applier, Held
from flowkit.config import CoordinatorConfig
from flowkit.errors import BusError
from flowkit.protocols import Bus, Clock, Place
from flowkit.storage import Sent
from flowkit.task import Mark

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 500
"""Tasks whose commands are sent again in one go."""

Key = tuple[str, tuple[int, int, int]]
"""A task; of it the node, the attempt, how often it was handed back before."""
Outstanding = Mapping[int, tuple[int, int]]
Ends = Mapping[int, int]
Resend = Callable[[Mapping[str, Sequence[Sent]]], Awaitable[None]]


@dataclass(slots=True)
class Doubt:
    """A command that nobody has begun as far as is known here, and that may not come to anybody any more.

    Where its place is not known it may be anywhere below ``commands``, the ends of its topic when somebody first looked. Once the
    topic is past it, somebody may have begun it and told so: that report is below ``reports``. Only when that has been read as well and
    the command is still not begun it is lost. So neither a slow worker nor a slow coordinator makes a command look lost.
    """

    topic: str
    place: Place | None
    commands: Ends | None = None
    reports: Ends | None = None


class CommandWatch:
    """Follows the commands that were sent from here until they are begun, and those that somebody is to look after."""

    def __init__(self, *, bus: Bus, clock: Clock, config: CoordinatorConfig, applier: Applier) -> None:
        self._bus = bus
        self._clock = clock
        self._config = config
        self._applier = applier
        self._young: list[tuple[str, Sequence[str], Sequence[Sent]]] = []
        """What was sent since the last look: most of it is begun before the next."""
        self._waiting: dict[str, dict[int, deque[tuple[int, Key]]]] = {}
        """What waits in its topic, by partition, in the order in which it was sent."""
        self._doubts: dict[Key, Doubt] = {}
        self._something = anyio.Event()

    def sent(self, held: Held, topics: Sequence[str], commands: Sequence[Sent]) -> None:
        """These commands of a task are on the bus."""
        self._young.append((held.task.task_id, topics, commands))
        if self._doubts:
            for index, attempt, handovers, _ in commands:
                self._doubts.pop((held.task.task_id, (index, attempt, handovers)), None)
        self._something.set()

    def check(self, held: Held, index: int, topic: str, *, anew: bool = False) -> None:
        """See whether a node's command is still to come. ``anew``: it may have been sent just now, whatever was known before."""
        record = held.task.records.get(index)
        if record is None:
            return
        key = held.task.task_id, (index, record.attempt, record.handovers)
        place = record.place if record.sent else None
        known = self._doubts.get(key)
        if anew or known is None or known.place != place:
            self._doubts[key] = Doubt(topic, place)
            self._something.set()

    async def run(self, resend: Resend) -> None:
        """Look now and then, as long as there is something to look after, and have what is lost sent again."""
        while True:
            if not (self._young or self._waiting or self._doubts):
                self._something = anyio.Event()
                await self._something.wait()
            await self._clock.sleep(self._config.command_check_sec)
            try:
                lost = await self.look()
            except BusError as error:
                logger.warning("The bus is unavailable: %s", error, extra={"action": "bus_unavailable"})
                continue
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

    async def look(self) -> dict[str, list[Sent]]:
        """Compare with the bus, and return the commands that are lost, by task."""
        self._forget_what_began()
        known = list(self._doubts)
        topics = {*self._waiting, *(doubt.topic for doubt in self._doubts.values())}
        try:
            found = {topic: await self._bus.outstanding(topic, self._config.workers_group) for topic in sorted(topics)}
        except BusError:
            # Nothing grows older meanwhile: what was begun must not gather.
            self._young = [sent for sent in self._young if self._any_to_begin(*sent)]
            raise
        for topic, outstanding in found.items():
            known += self._sort_out(topic, outstanding)
        self._grow_older()
        # What came up meanwhile may be younger than what was found.
        late = [key for key in known if key in self._doubts and self._is_past(key, self._doubts[key], found)]
        lost: dict[str, list[Sent]] = {}
        if late:
            # After the commands: whatever was begun before them has told so before this.
            reports = await self._bus.outstanding(self._config.events_topic, self._config.coordinators_group)
            for key in late:
                doubt = self._doubts.get(key)
                if doubt is None:
                    continue
                if doubt.reports is None:
                    doubt.reports = _ends(reports)
                elif _all_read(doubt.reports, reports):
                    lost.setdefault(key[0], []).append((*key[1], doubt.place))
        return lost

    def _still_to_begin(self, key: Key) -> bool:
        """Whether a command is not begun, as far as is known here. Of a task that is not held others know more."""
        task_id, (index, attempt, handovers) = key
        for held in self._applier.held_of((task_id,)):
            record = held.task.records.get(index)
            return (
                record is not None and held.task.marks[index] == Mark.ISSUED and (record.attempt, record.handovers) == (attempt, handovers)
            )
        return False

    def _forget_what_began(self) -> None:
        for key in [key for key in self._doubts if not self._still_to_begin(key)]:
            del self._doubts[key]
        for topic, partitions in list(self._waiting.items()):
            for partition, waiting in list(partitions.items()):
                while waiting and not self._still_to_begin(waiting[0][1]):
                    waiting.popleft()
                if not waiting:
                    del partitions[partition]
            if not partitions:
                del self._waiting[topic]

    def _any_to_begin(self, task_id: str, _: Sequence[str], commands: Sequence[Sent]) -> bool:
        return any(self._still_to_begin((task_id, (index, attempt, handovers))) for index, attempt, handovers, _ in commands)

    def _sort_out(self, topic: str, outstanding: Outstanding) -> list[Key]:
        """Of what was waiting, doubt what is not to come any more."""
        doubted: list[Key] = []
        for partition, waiting in self._waiting.get(topic, {}).items():
            for position, key in _gone(waiting, *outstanding.get(partition, (0, 0))):
                if self._still_to_begin(key) and key not in self._doubts:
                    self._doubts[key] = Doubt(topic, (partition, position))
                    doubted.append(key)
        return doubted

    def _grow_older(self) -> None:
        young, self._young = self._young, []
        for task_id, topics, commands in young:
            for topic, (index, attempt, handovers, place) in zip(topics, commands, strict=True):
                key = task_id, (index, attempt, handovers)
                if not self._still_to_begin(key):
                    continue
                if place is None:
                    self._doubts.setdefault(key, Doubt(topic, None))
                else:
                    self._waiting.setdefault(topic, {}).setdefault(place[0], deque()).append((place[1], key))

    def _is_past(self, key: Key, doubt: Doubt, found: Mapping[str, Outstanding]) -> bool:
        """Whether a command does not come any more. A doubt without ground is dropped."""
        outstanding = found.get(doubt.topic)
        if outstanding is None:
            return False
        if doubt.place is not None:
            first, end = outstanding.get(doubt.place[0], (0, 0))
            if first <= doubt.place[1] < end:
                del self._doubts[key]
                return False
            return True
        if doubt.commands is None:
            doubt.commands = _ends(outstanding)
            return False
        return _all_read(doubt.commands, outstanding)


def _ends(outstanding: Outstanding) -> Ends:
    return {partition: end for partition, (_, end) in outstanding.items()}


def _all_read(ends: Ends, outstanding: Outstanding) -> bool:
    """Whether everything below these ends was read, or is lost."""
    return all(first >= min(ends.get(partition, 0), end) for partition, (first, end) in outstanding.items())


def _gone(waiting: deque[tuple[int, Key]], first: int, end: int) -> Iterator[tuple[int, Key]]:
    """Take out what is below the first or above the end, from both ends of what waits."""
    while waiting and not first <= waiting[0][0] < end:
        yield waiting.popleft()
    while waiting and waiting[-1][0] >= end:
        yield waiting.pop()


def _pages(task_ids: list[str]) -> Iterator[list[str]]:
    return (task_ids[start : start + MOST_AT_ONCE] for start in range(0, len(task_ids), MOST_AT_ONCE))


__all__ = ["CommandWatch"]
