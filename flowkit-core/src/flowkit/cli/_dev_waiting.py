"""Tasks of ``flowkit dev`` that wait for a handler."""

from collections.abc import Callable, Collection

import anyio

from flowkit._runtime.concurrency import Recent
from flowkit.client import TaskVerbs
from flowkit.errors import FlowKitError
from flowkit.graph._control_types import runs_on_worker
from flowkit.task import TaskStatus, TaskView

LOOK_SEC = 1.0
MOST_AT_ONCE = 20
MOST_KNOWN = 10_000
OPEN = (TaskStatus.QUEUED, TaskStatus.RUNNING)


class WaitingTasks:
    """Reports each task with a node that no handler serves, once for each set of roles."""

    def __init__(
        self,
        tasks: TaskVerbs,
        roles: Callable[[], Collection[str] | None],
        say: Callable[[str, str], None],
    ) -> None:
        """``roles`` returns the roles that are served, or None while no worker is ready."""
        self._tasks = tasks
        self._roles = roles
        self._say = say
        self._known = Recent[tuple[str, frozenset[str]], None](MOST_KNOWN)

    async def watch(self) -> None:
        """Check the tasks that have not ended, from time to time."""
        while True:
            await anyio.sleep(LOOK_SEC)
            if (roles := self._roles()) is not None:
                try:
                    await self._check(frozenset(roles))
                except FlowKitError:
                    continue  # the store is unavailable, which the coordinator reports

    async def _check(self, roles: frozenset[str]) -> None:
        page = await self._tasks.list_tasks(status=OPEN, limit=MOST_AT_ONCE)
        for listed in page.items:
            if (listed.id, roles) not in self._known:
                self._known[listed.id, roles] = None
                self._report(await self._tasks.get_task(listed.id), roles)

    def _report(self, task: TaskView, roles: Collection[str]) -> None:
        unserved = {
            node.type: node.node_id
            for node in reversed(task.nodes.values())
            if not node.status.terminal and runs_on_worker(node.type) and node.type not in roles
        }
        for role, node_id in unserved.items():
            self._say(
                "task", f"{task.id} waits: node {node_id} needs a handler for the role {role!r}"
            )
