"""Withdrawals of commands: they prove that no worker will start an attempt, or name its worker."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

from anyio.abc import TaskGroup

from flowkit._engine import Event, WithdrawCommand
from flowkit._records.claims import prove_withdrawn
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.protocols import Clock, Store
from flowkit.task import Task

MOST_AT_ONCE = 200
"""Commands that are withdrawn together."""


class Withdrawals:
    """Claims attempts that must not start, and reports whether a worker was first. Orders that come
    in during a withdrawal are carried out together after it. The wake-up of the task repeats what a
    failure or a crash leaves undone.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._clock = clock
        self._report = report
        self._leaving = leaving
        self._orders: dict[tuple[str, str], tuple[Task, WithdrawCommand]] = {}
        self._is_running = False

    def start(self, task: Task, order: WithdrawCommand) -> None:
        """Withdraw the command of an attempt, unless that is in progress."""
        self._orders.setdefault((task.task_id, order.token), (task, order))
        if not self._is_running:
            self._is_running = True
            self._group.start_soon(self._withdraw_all)

    async def _withdraw_all(self) -> None:
        try:
            while self._orders:
                some = dict(islice(self._orders.items(), MOST_AT_ONCE))
                names = ", ".join(dict.fromkeys(task_id for task_id, _ in some))[:200]
                try:
                    with failures_logged(
                        "Commands were not withdrawn", action="withdrawal_failed", task_id=names
                    ):
                        events = prove_withdrawn(
                            self._store.artifacts, [*some.values()], self._clock.now()
                        )
                        found = await awaited(events, ending=self._leaving)
                        await awaited(self._report(found), ending=self._leaving)
                finally:
                    for key in some:
                        del self._orders[key]
        finally:
            self._is_running = False
