"""The schedules of a coordinator: it makes their tasks when they are due."""

import asyncio

from flowkit._json.limits import LAST_MOMENT
from flowkit._records.due_records import handle_due
from flowkit._records.schedule_records import KIND
from flowkit._runtime.concurrency import within
from flowkit.client._schedule_runs import ScheduleRuns
from flowkit.protocols import Clock, Store

MOST_AT_ONCE = 200
"""Schedules that are advanced together."""


class ScheduleService:
    """Advances schedules when they are due. Between these times it sleeps.

    Each coordinator runs one. A step of a schedule that one of them has stored is not due for the
    others, so that they share the work if much is due.
    """

    def __init__(self, *, store: Store, clock: Clock, runs: ScheduleRuns, tick_sec: float) -> None:
        """``tick_sec`` is the longest pause between two reads of the store."""
        self._records = store.records
        self._clock = clock
        self._runs = runs
        self._tick_sec = tick_sec
        self._woken = asyncio.Event()
        self._ended: set[str] = set()
        """Schedules of which a task has ended."""

    def wake(self) -> None:
        """Read the store again: a schedule was put or changed."""
        self._woken.set()

    def task_ended(self, schedule_id: str) -> None:
        """Advance a schedule that waits for the end of a task."""
        self._ended.add(schedule_id)
        self._woken.set()

    async def run(self) -> None:
        """Advance what is due, again and again."""
        while True:
            self._woken.clear()
            await self._advance_ended()
            # Damaged schedules stay due.
            await handle_due(
                self._records, KIND, self._runs.advance, clock=self._clock, at_once=MOST_AT_ONCE
            )
            pause_sec = await self._pause_sec()
            if pause_sec > 0:
                await within(pause_sec, self._woken.wait, clock=self._clock)

    async def _advance_ended(self) -> None:
        ended, self._ended = sorted(self._ended), set()
        for place in range(0, len(ended), MOST_AT_ONCE):
            found = await self._records.get(KIND, ended[place : place + MOST_AT_ONCE])
            await self._runs.advance(list(found.values()))

    async def _pause_sec(self) -> float:
        """Return the time until the next schedule is due, but at most a tick."""
        now = self._clock.now()
        pauses = [self._tick_sec]
        for limit in (1, MOST_AT_ONCE):  # the first ones may be damaged, and stay due
            coming = await self._records.due(KIND, before=LAST_MOMENT, limit=limit)
            times = [one.due_at for one in coming if one.due_at is not None]
            pauses += [at - now for at in times if at > now]
            if len(pauses) > 1 or len(coming) < limit:
                break
        return min(pauses)
