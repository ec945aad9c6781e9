"""Who has not been heard of, and for how long."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

from pydantic_core import to_json

from flowkit._records.task_records import mentions
from flowkit.config import CoordinatorConfig
from flowkit.protocols import Clock, Store, TaskQuery
from flowkit.task import Mark, Task, TaskStatus

logger = logging.getLogger(__name__)

PAGE = 100


class WorkerWatch:
    """Measures the silence of workers on this process's own monotonic clock, from when it first
    looked.

    So neither a clock that is off nor a coordinator that was away makes a living worker look lost.
    Nor does a store that was away: while nobody could look, nobody could renew a session either,
    and that time counts for nothing.
    """

    def __init__(self, *, store: Store, clock: Clock, config: CoordinatorConfig) -> None:
        self._store = store
        self._clock = clock
        self._soft = config.heartbeat_soft_sec
        self._hard = config.heartbeat_hard_sec
        self._beats: dict[str, tuple[int, float]] = {}
        """Per worker: its last beat, and when it was first seen. A worker without a session has
        beat -1.
        """
        self._suspects: set[str] = set()
        self.stopped: set[str] = set()
        """Workers that removed their session themselves: they are silent because they stopped."""
        self._pause = min(self._soft, self._hard) / 3
        self._looked = clock.monotonic()
        """When sessions were last read. What they tell of is what was before."""

    async def look(self) -> list[str]:
        """Read the sessions anew, and return the workers that have become lost since the last
        look.
        """
        sessions = {session.worker_id: session.beat for session in await self._store.sessions()}
        now = self._clock.monotonic()
        unseen = now - self._looked - 2 * self._pause
        if unseen > 0:
            self._beats = {
                worker_id: (beat, since + unseen)
                for worker_id, (beat, since) in self._beats.items()
            }
        self._looked = now
        for worker_id in {*sessions, *self._beats}:
            beat = sessions.get(worker_id, -1)
            known = self._beats.get(worker_id)
            if known is None or known[0] != beat:
                self._beats[worker_id] = (beat, now)
                if beat >= 0:
                    self.stopped.discard(worker_id)
                elif known is not None:
                    self.stopped.add(worker_id)
        lost = []
        for worker_id, (beat, since) in list(self._beats.items()):
            silence = now - since
            if silence < self._soft:
                self._suspects.discard(worker_id)
            elif worker_id not in self._suspects:
                self._suspects.add(worker_id)
                if beat >= 0:
                    logger.warning(
                        "Worker %s has been silent for %.0f s",
                        worker_id,
                        silence,
                        extra={"action": "worker_suspect", "worker_id": worker_id},
                    )
            if silence >= self._hard:
                lost.append(worker_id)
            if silence > 100 * self._hard:
                del self._beats[worker_id]
                self.stopped.discard(worker_id)
        return lost

    def silent(self, tasks: Iterable[Task]) -> dict[str, float]:
        """For how many seconds each worker that has a node of these tasks has not been heard of."""
        silent = {}
        for task in tasks:
            for index, record in task.records.items():
                if record.worker_id is not None and task.marks[index] == Mark.RUNNING:
                    _, since = self._beats.setdefault(record.worker_id, (-1, self._looked))
                    silent[record.worker_id] = self._looked - since
        return silent

    async def run(self, lost: Callable[[Collection[str]], Awaitable[None]]) -> None:
        """Look regularly, and tell of the workers that are lost: once each time, until they are
        heard of again.
        """
        told: set[str] = set()
        while True:
            gone = set(await self.look())
            if gone - told:
                await lost(gone - told)
            told = gone
            await self._clock.sleep(self._pause)


async def tasks_of(store: Store, worker_ids: Collection[str]) -> AsyncIterator[list[str]]:
    """The tasks that one of these workers has, or had, a node of: whoever held them may be gone as
    well.
    """
    names = [to_json(worker_id) for worker_id in worker_ids]
    after: str | None = None
    while True:
        query = TaskQuery(
            statuses=(TaskStatus.RUNNING.value, TaskStatus.PAUSED.value), limit=PAGE, after=after
        )
        records, after = await store.list_tasks(query)
        found = [record.header.task_id for record in records if mentions(record, names)]
        if found:
            yield found
        if after is None:
            return
