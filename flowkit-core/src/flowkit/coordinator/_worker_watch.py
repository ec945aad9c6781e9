"""The watch on the heartbeats of workers."""

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

import anyio
from pydantic_core import to_json

from flowkit._engine.settings import MAX_LEASE_DOUBLINGS
from flowkit._records.heartbeats import is_silent, silence_sec
from flowkit._records.task_records import mentions
from flowkit._records.worker_sessions import WorkerSession, end_session, sessions_of
from flowkit._runtime.concurrency import Recent
from flowkit.config import CoordinatorConfig
from flowkit.coordinator._coordinator_session import CoordinatorSession
from flowkit.errors import StoreError
from flowkit.protocols import Clock, Store, TaskQuery
from flowkit.task import Mark, Task, TaskStatus

logger = logging.getLogger(__name__)

PAGE = 100
_BEGUN = (Mark.RUNNING, Mark.CANCELLING)
MAX_ENDED = 1_000


class WorkerWatch:
    """Measures how long workers are silent, on the monotonic clock of this process.

    A worker's silence starts when this process first sees its heartbeat. So a live worker is not
    declared lost because a clock is wrong or this coordinator was away. Time in which this
    coordinator could not renew its own session does not count: workers could not renew theirs
    either, because the store was away, full or locked.
    """

    def __init__(
        self, *, store: Store, clock: Clock, config: CoordinatorConfig, coordinator_id: str
    ) -> None:
        self._store = store
        self._clock = clock
        self._soft = config.heartbeat_soft_sec
        self._hard = config.heartbeat_hard_sec
        # No lease is longer than half of this.
        longest_lease_sec = config.lease_ttl_sec * 2**MAX_LEASE_DOUBLINGS
        self._forget = 2 * max(longest_lease_sec, self._hard)
        self._heartbeats: dict[str, tuple[int, float]] = {}
        """The last heartbeat of each worker, and when it was first seen. A worker without a session
        has heartbeat -1.
        """
        self._suspects: set[str] = set()
        self.stopped: set[str] = set()
        """Workers whose session was removed: they are silent because they ended."""
        self.ended = Recent[str, None](MAX_ENDED)
        """Workers that were declared lost, and have no new session."""
        self._incarnations: dict[str, str | None] = {}
        """The processes of the workers, as they are named in their sessions."""
        self._restarted: set[str] = set()
        """Workers that were restarted since :meth:`run` last looked."""
        self._reading = anyio.Lock()
        self._pause = min(self._soft, self._hard) / 3
        self._read_at = clock.monotonic()
        """The time when the sessions were last read."""
        self._was_unavailable = False
        """Whether the store has been unavailable since then."""
        self._own = CoordinatorSession(
            store=store, clock=clock, coordinator_id=coordinator_id, hb_interval_sec=self._pause
        )

    async def lost_workers(self) -> list[str]:
        """Read the sessions, and return the workers that are lost.

        Sessions of workers that were lost long ago are deleted. A worker that is still alive has a
        session again after its next heartbeat.
        """
        async with self._reading:
            return await self._lost_workers()

    async def _lost_workers(self) -> list[str]:
        found = await self._sessions_now()
        sessions = {session.worker_id: session.beat for session in found}
        incarnations = {session.worker_id: session.info.get("incarnation") for session in found}
        known_before = incarnations.keys() & self._incarnations.keys()
        self._restarted |= {
            worker_id
            for worker_id in known_before
            if incarnations[worker_id] != self._incarnations[worker_id]
        }
        self._incarnations = incarnations
        now = self._clock.monotonic()
        seen = 0.0 if self._was_unavailable else 2 * self._pause
        unseen = now - self._read_at - seen
        if unseen > 0:
            self._heartbeats = {
                worker_id: (beat, since + unseen)
                for worker_id, (beat, since) in self._heartbeats.items()
            }
        self._read_at, self._was_unavailable = now, False
        for worker_id in {*sessions, *self._heartbeats}:
            beat = sessions.get(worker_id, -1)
            known = self._heartbeats.get(worker_id)
            if known is None or known[0] != beat:
                self._heartbeats[worker_id] = (beat, now)
                if beat >= 0:
                    self.stopped.discard(worker_id)
                    self.ended.pop(worker_id, None)
                elif known is not None:
                    self.stopped.add(worker_id)
        lost = []
        for worker_id, (beat, since) in list(self._heartbeats.items()):
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
            if silence > self._forget:
                if beat >= 0:
                    await end_session(self._store, worker_id)
                del self._heartbeats[worker_id]
                self.stopped.discard(worker_id)
        return lost

    async def _sessions_now(self) -> list[WorkerSession]:
        """Renew the session of this coordinator, and return those of the workers.

        Sessions of coordinators that were killed are deleted.

        Raises:
            StoreUnavailable: the store cannot be read, or does not accept changes.
        """
        try:
            await self._own.renew()
            sessions = await sessions_of(self._store)
        except StoreError:
            self._was_unavailable = True
            raise
        now = self._clock.now()
        for session in sessions:
            if (
                session.is_coordinator
                and is_silent(session, now)
                and silence_sec(session, now) > self._hard
            ):
                await end_session(self._store, session.worker_id)
        return [session for session in sessions if not session.is_coordinator]

    @property
    def accepted_since(self) -> float:
        """Time since which the store accepts changes, as far as is known."""
        return self._own.accepted_since

    async def renew_session(self) -> None:
        """Renew the session of this coordinator, which proves that the store accepts changes.

        Raises:
            StoreUnavailable: it does not.
        """
        async with self._reading:
            await self._own.renew()

    async def leave(self) -> None:
        """End the session of this coordinator."""
        await self._own.end()

    async def declare_lost(self, worker_id: str) -> None:
        """End the session of a worker, and count the worker as lost until it has a new one."""
        async with self._reading:
            await end_session(self._store, worker_id)
            self._heartbeats.pop(worker_id, None)
            self.stopped.add(worker_id)
            self.ended[worker_id] = None

    def silent(self, nodes: Iterable[tuple[Task, Collection[int]]]) -> dict[str, float]:
        """Return for how many seconds each worker that runs one of these nodes is silent."""
        silent = {}
        for task, indexes in nodes:
            for index in indexes:
                record = task.records[index]
                if record.worker_id is not None and task.marks[index] in _BEGUN:
                    _, since = self._heartbeats.setdefault(record.worker_id, (-1, self._read_at))
                    silent[record.worker_id] = self._read_at - since
                    if record.worker_id in self.ended:
                        silent[record.worker_id] = math.inf
        return silent

    async def run(
        self,
        lost: Callable[[Collection[str]], Awaitable[None]],
        restarted: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        """Check regularly. Report each restarted worker, and each lost one once, until it sends
        heartbeats again.
        """
        reported: set[str] = set()
        while True:
            current = set(await self.lost_workers())
            if new := frozenset(self._restarted):
                await restarted(new)
                self._restarted -= new
            if current - reported:
                await lost(current - reported)
            reported = current
            await self._clock.sleep(self._pause)


async def tasks_of(store: Store, worker_ids: Collection[str]) -> AsyncIterator[list[str]]:
    """Yield the stored tasks of which one of these workers has or had a node. The coordinator that
    cached them may be lost as well.
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
