"""The publisher of changes: it copies the history of tasks to the topic of changes.

A task's changes are published in order, and each only after the one before is confirmed. So a
reader of the topic sees the first copy of each change in order, also if several coordinators
publish the same ones, or a coordinator crashes and another one begins again after the last change
that is stored as published.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from flowkit._engine import ChangesPublished
from flowkit._records.history import HistoryReader
from flowkit._records.task_records import decode_task
from flowkit._runtime.retries import Backoff, notices_of
from flowkit._tasks.event_processor import EventProcessor
from flowkit._tasks.views import event_view
from flowkit.changes import VERSION, TaskChange
from flowkit.errors import BusError, CorruptRecord, PayloadError
from flowkit.protocols import Bus, Clock, Message, Store, TaskRecord
from flowkit.task import LogEntry, Task

logger = logging.getLogger(__name__)

MOST_TASKS = 200
"""Tasks whose changes are published together."""
MOST_CHANGES = 50
"""Changes of a task that are published before those of other tasks."""
MOST_WAITING = 50_000
"""Tasks that wait. Those above it are left to the sweep."""
LONGEST_PAUSE_SEC = 10.0
_HEADERS = {"flowkit-version": b"%d" % VERSION}
_JSON = TypeAdapter(TaskChange)


@dataclass(slots=True)
class _Backlog:
    """Changes of a task that are not published."""

    task_id: str
    upto: int
    """The last one to publish now."""
    published: int
    messages: deque[tuple[int, Message]] = field(default_factory=deque)
    is_advanced: bool = False


class ChangePublisher:
    """Publishes the changes of tasks. Each coordinator runs one."""

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        topic: str,
        processor: EventProcessor,
        omits_data: bool,
    ) -> None:
        """With ``omits_data``, only fields are published that no plugin would encode elsewhere."""
        self._store = store
        self._bus = bus
        self._clock = clock
        self._topic = topic
        self._processor = processor
        self._omits_data = omits_data
        self._waiting: dict[str, int] = {}
        """Last change to publish, by task."""
        self._woken = asyncio.Event()

    def publish(self, task_id: str, upto: int) -> None:
        """Publish the stored changes of a task up to this number."""
        if len(self._waiting) < MOST_WAITING or task_id in self._waiting:
            self._waiting[task_id] = max(upto, self._waiting.get(task_id, 0))
            self._woken.set()

    async def run(self) -> None:
        """Publish what waits, again and again."""
        pauses = Backoff(longest_sec=LONGEST_PAUSE_SEC)
        while True:
            while self._waiting:
                try:
                    await self._publish_some()
                except BusError as error:
                    notices_of(self._clock).trouble(
                        logger,
                        "changes",
                        "Changes of tasks cannot be published",
                        error,
                        action="changes_unpublished",
                    )
                    await self._clock.sleep(pauses.next_sec())
                else:
                    pauses = Backoff(longest_sec=LONGEST_PAUSE_SEC)
                    notices_of(self._clock).over(logger, "changes")
            self._woken.clear()
            await self._woken.wait()

    async def _publish_some(self) -> None:
        """Publish changes of the tasks that have waited longest.

        Raises:
            BusError: not all were published. The tasks still wait.
            StoreError: the store is unavailable. The tasks still wait.
        """
        first = {task_id: self._waiting[task_id] for task_id in [*self._waiting][:MOST_TASKS]}
        records = await self._store.load(first)
        for task_id in first.keys() - records.keys():
            del self._waiting[task_id]
        backlogs = [
            backlog
            for task_id, record in records.items()
            if (backlog := await self._read(task_id, record, first[task_id])) is not None
        ]
        failure: BusError | None = None
        while failure is None and (wave := [one for one in backlogs if one.messages]):
            try:
                await self._send(wave)
            except BusError as error:
                failure = error
        self._finish(backlogs)
        await self._record([one for one in backlogs if one.is_advanced])
        if failure is not None:
            raise failure

    async def _read(self, task_id: str, record: TaskRecord, upto: int) -> _Backlog | None:
        """Read the next changes of a task; None if it is damaged."""
        cached = self._processor.find_cached([task_id])
        try:
            task = cached[0].task if cached else decode_task(record, to_look_at=True)
            done = 0 if task.publication is None else max(task.publication.seq, 0)
            backlog = _Backlog(task_id, upto, done)
            async for seq, entry in HistoryReader(self._store, done).read(record, upto):
                if seq > upto or len(backlog.messages) == MOST_CHANGES:
                    break
                backlog.messages.append((seq, self._message(task, seq, entry)))
        except (CorruptRecord, PayloadError):
            # It is quarantined by those who change it.
            del self._waiting[task_id]
            return None
        return backlog

    def _message(self, task: Task, seq: int, entry: LogEntry) -> Message:
        change = task_change(task, seq, entry)
        if self._omits_data:
            change = _without_data(change)
        value = _JSON.dump_json(change)
        if len(value) > self._bus.max_message_bytes:
            value = _JSON.dump_json(_without_data(change))
        return Message(self._topic, value, task.task_id, _HEADERS)

    async def _send(self, wave: Sequence[_Backlog]) -> None:
        """Publish the next change of each task."""
        await self._bus.publish([one.messages[0][1] for one in wave])
        for one in wave:
            one.published, _ = one.messages.popleft()
            one.is_advanced = True

    def _finish(self, backlogs: Sequence[_Backlog]) -> None:
        """Take tasks off the queue whose changes are published, and put the others at its end."""
        for one in backlogs:
            upto = self._waiting.pop(one.task_id)
            if one.published < upto:
                self._waiting[one.task_id] = upto

    async def _record(self, backlogs: Sequence[_Backlog]) -> None:
        """Record in the tasks which changes are published: of an ended one at once, of another with
        its next commit.
        """
        events: dict[str, list[ChangesPublished]] = {}
        for one in backlogs:
            event = ChangesPublished(one.published)
            match self._processor.find_cached([one.task_id]):
                case [cached] if not cached.task.terminal:
                    self._processor.apply_deferred(cached, event)
                case _:
                    events[one.task_id] = [event]
        if events:
            await self._processor.apply(events)


def _without_data(change: TaskChange) -> TaskChange:
    if change.data is None:
        return change
    return change.model_copy(update={"data": None, "data_omitted": True})


def task_change(task: Task, seq: int, entry: LogEntry) -> TaskChange:
    """Return a change in the history as it is published."""
    event, spec = event_view(task, seq, entry), task.spec
    return TaskChange(
        task_id=event.task_id,
        seq=seq,
        at=event.at,
        kind=event.kind,
        status=event.status,
        node_id=event.node_id,
        data=event.data,
        pipeline=spec.pipeline,
        flow=None if spec.flow is None else spec.flow.name,
        flow_version=None if spec.flow is None else spec.flow.version,
        parent=None if spec.parent is None else spec.parent.task_id,
        labels=dict(spec.labels),
    )
