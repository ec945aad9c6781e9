"""Figures about an installation."""

import math
from datetime import datetime, timedelta
from typing import get_args

import anyio
from pydantic import BaseModel

from flowkit import Client, QueueView, TaskStatus
from flowkit.task import WaitingFor

MOST = 1_000
"""Number at which counting stops."""
MOST_LETTERS = 100
"""The same for dead letters, which are read with their data."""
FRESH_SEC = 5.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class WorkerStats(BaseModel):
    """Figures about the workers."""

    live: int
    silent: int
    """Workers without heartbeats."""
    running: int
    """Nodes that the live workers run."""
    slots: int


class CoordinatorStats(BaseModel):
    """Figures about the coordinators."""

    live: int
    silent: int
    """Coordinators without heartbeats."""


class Stats(BaseModel):
    """Figures about an installation. Counting stops at ``most``; of dead letters, at
    ``most_letters``.
    """

    at: datetime
    most: int = MOST
    most_letters: int = MOST_LETTERS
    open: dict[TaskStatus, int]
    """Tasks that have not ended, by status."""
    ended_last_hour: dict[TaskStatus, int]
    """Tasks that were created in the last hour and have ended, by status."""
    ended_last_day: dict[TaskStatus, int]
    """Tasks that were created in the last 24 hours and have ended, by status."""
    retrying: int
    """Tasks that run while a node of theirs fails and is tried again."""
    failures_last_day: dict[str, int]
    """Tasks that were created in the last 24 hours and have failed, by the reason codes of their
    failed nodes.
    """
    waiting: dict[WaitingFor, int]
    """Tasks with a node that waits, by what it waits for."""
    queues: list[QueueView]
    """Nodes that wait for a worker, by role, those that have waited longest first.
    """
    workers: WorkerStats
    coordinators: CoordinatorStats
    letters: int
    """Dead letters."""


class StatsReader:
    """Reader of the figures, which reads them at most every five seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = anyio.Lock()
        self._stats: Stats | None = None
        self._read_at = -math.inf

    async def read(self) -> Stats:
        """Return the figures."""
        async with self._lock:
            now = self._client.clock.monotonic()
            if self._stats is None or now - self._read_at >= FRESH_SEC:
                self._stats, self._read_at = await self._counted(), now
            return self._stats

    async def _counted(self) -> Stats:
        client = self._client
        now = client.clock.now_dt()
        workers = await client.workers()
        live = [one for one in workers if not one.silent]
        coordinators = [one.silent for one in await client.coordinators()]
        return Stats(
            at=now,
            open={
                status: await client.count_tasks(status=status, most=MOST)
                for status in TaskStatus
                if not status.terminal
            },
            ended_last_hour=await self._ended(now - HOUR),
            ended_last_day=await self._ended(now - DAY),
            retrying=await client.count_tasks(retrying=True, most=MOST),
            failures_last_day=await client.count_reasons(
                status=TaskStatus.FAILED, created_after=now - DAY, most=MOST
            ),
            waiting={
                what: await client.count_tasks(waiting=what, most=MOST)
                for what in get_args(WaitingFor)
            },
            queues=sorted(await client.queues(), key=lambda queue: queue.oldest_at),
            workers=WorkerStats(
                live=len(live),
                silent=len(workers) - len(live),
                running=sum(one.running for one in live),
                slots=sum(one.slots for one in live),
            ),
            coordinators=CoordinatorStats(
                live=coordinators.count(False), silent=coordinators.count(True)
            ),
            letters=await self._letters(),
        )

    async def _letters(self) -> int:
        page = await self._client.dead_letters(limit=MOST_LETTERS)
        return len(page.items) if page.next is None else MOST_LETTERS

    async def _ended(self, since: datetime) -> dict[TaskStatus, int]:
        count = self._client.count_tasks
        return {
            status: await count(status=status, created_after=since, most=MOST)
            for status in TaskStatus
            if status.terminal
        }
