"""Tasks that clients pause and cancel, on the terminal of ``flowkit dev``."""

from collections.abc import Callable

import anyio

from flowkit.client import TaskVerbs
from flowkit.errors import FlowKitError
from flowkit.task import TaskStatus, TaskView

LOOK_SEC = 1.0
MOST_AT_ONCE = 20
STATUSES = (TaskStatus.PAUSED, TaskStatus.CANCELLED)


class ClientChanges:
    """Reports tasks that are paused, or that were cancelled before they had begun.

    The process of the client commits these changes, so no hook is called here.
    """

    def __init__(self, tasks: TaskVerbs, report: Callable[[TaskView], None]) -> None:
        self._tasks = tasks
        self._report = report

    async def watch(self) -> None:
        """Check the newest of these tasks from time to time, except those from before."""
        known, seen = await self._listed({}), dict[str, TaskView]()
        while True:
            await anyio.sleep(LOOK_SEC)
            listed = await self._listed(seen)
            known = {key: view for key, view in known.items() if key in listed}
            for key in listed.keys() - known.keys():
                # A change that was just seen may still be reported by a hook.
                if key in seen:
                    known[key] = listed[key]
                    self._report(listed[key])
            seen = listed

    async def _listed(self, before: dict[str, TaskView]) -> dict[str, TaskView]:
        """Return these tasks, by id and status, or those ``before`` if the store is unavailable."""
        try:
            page = await self._tasks.list_tasks(status=STATUSES, limit=MOST_AT_ONCE)
        except FlowKitError:
            return before
        return {f"{view.id} {view.status}": view for view in page.items}
