"""The triggers of a coordinator: it makes the tasks of their events."""

import asyncio

from flowkit._records.due_records import handle_due
from flowkit._records.trigger_records import EVENT_KIND
from flowkit._runtime.concurrency import within
from flowkit.client._trigger_runs import TriggerRuns
from flowkit.protocols import Clock, Store

MOST_AT_ONCE = 100
"""Events that are handled together."""


class TriggerService:
    """Handles events of triggers when they are due. Each coordinator runs one; the tasks of events
    have ids that follow from the events, so that several may handle the same ones.
    """

    def __init__(self, *, store: Store, clock: Clock, runs: TriggerRuns, tick_sec: float) -> None:
        """``tick_sec`` is the pause between two reads of the store."""
        self._records = store.records
        self._clock = clock
        self._runs = runs
        self._tick_sec = tick_sec
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Read the store again: a task with triggers has ended, or a trigger was resumed."""
        self._woken.set()

    async def run(self) -> None:
        """Handle what is due, again and again."""
        while True:
            self._woken.clear()
            # Events whose task has not ended yet stay due.
            await handle_due(
                self._records,
                EVENT_KIND,
                self._runs.handle,
                clock=self._clock,
                at_once=MOST_AT_ONCE,
            )
            await within(self._tick_sec, self._woken.wait, clock=self._clock)
