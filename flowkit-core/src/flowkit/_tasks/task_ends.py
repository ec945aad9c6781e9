"""Ends of tasks that triggers are to handle.

The events of an end are stored before the commit in which the task ends, so that a crash loses
none. If that commit is refused, the triggers find by the stored task that the end did not happen.
"""

from collections.abc import Collection, Sequence
from secrets import token_hex

from flowkit._records.trigger_changes import log_damage
from flowkit._records.trigger_records import PIPELINE_KIND, EndEvent, triggers_of
from flowkit.errors import CorruptRecord
from flowkit.protocols import Clock, RecordChange, Store
from flowkit.task import Task


class TaskEnds:
    """Events for triggers in a store."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def park(self, ended: Sequence[Task]) -> Collection[str]:
        """Store the events of tasks that are about to end. Return the ids of those tasks that have
        triggers.

        Raises:
            StoreError: the events were not stored.
        """
        pipelines = {task.spec.pipeline for task in ended} - {None}
        if not pipelines:
            return ()
        triggers = await self._triggers([one for one in pipelines if one is not None])
        if not triggers:
            return ()
        events = [
            (task, EndEvent(trigger_id, token, task.task_id, task.seq))
            for task in ended
            for trigger_id, token in triggers.get(task.spec.pipeline or "", {}).items()
        ]
        now = self._clock.now()
        await self._store.records.change(
            [RecordChange(token_hex(8), [event.record(now)]) for _, event in events]
        )
        return {task.task_id for task, _ in events}

    async def _triggers(self, pipelines: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the triggers on the ends of these pipelines, with their tokens."""
        found: dict[str, dict[str, str]] = {}
        for name, record in (await self._store.records.get(PIPELINE_KIND, pipelines)).items():
            try:
                if triggers := triggers_of(record):
                    found[name] = triggers
            except CorruptRecord as error:
                log_damage(error)
        return found
