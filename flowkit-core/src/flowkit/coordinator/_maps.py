"""Items and results of large maps, evaluated beside the other work of the coordinator."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from flowkit._engine import EngineSettings, Event
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.maps import MapEffect, map_event
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.protocols import Store
from flowkit.task import Task

MOST_MAPS = 4
"""Large maps that are evaluated or collected at a time. Each may hold many items in memory."""


class Maps:
    """Evaluates the items of large maps, and collects the results of their children."""

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        settings: EngineSettings,
        report: Callable[[str, Event], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._settings = settings
        self._report = report
        self._leaving = leaving
        self._evaluations = Evaluations()
        self._running: set[tuple[str, int, int, type]] = set()
        self._places = anyio.Semaphore(MOST_MAPS)

    def start(self, task: Task, effect: MapEffect) -> None:
        """Carry out an effect, unless that is in progress."""
        key = (task.task_id, effect.index, effect.attempt, type(effect))
        if key not in self._running:
            self._running.add(key)
            self._group.start_soon(self._run, key, task, effect)

    async def _run(self, key: tuple[str, int, int, type], task: Task, effect: MapEffect) -> None:
        """Report the outcome of an effect. If it is not known now, the wake-up of the task tries
        again.
        """
        message = "A map was not evaluated"
        with failures_logged(
            message, action="map_lost", task_id=task.task_id, trace=task.spec.trace
        ):
            try:
                async with self._places:
                    if task.records[effect.index].attempt != effect.attempt:
                        return
                    found = map_event(self._store, task, effect, self._settings, self._evaluations)
                    event = await awaited(found, ending=self._leaving)
            finally:
                # Before the report: its event may cause the same effect again.
                self._running.discard(key)
            if event is not None:
                await awaited(self._report(task.task_id, event), ending=self._leaving)
