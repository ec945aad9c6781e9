"""Withdrawals of commands: they prove that no worker will start an attempt, or name its worker."""

from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from flowkit._engine import CommandWithdrawn, Event, WithdrawCommand
from flowkit._records.claims import CANCELLED, Claim, claim_record, read_claim
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.messages import NodeStarted
from flowkit.protocols import Clock, Store
from flowkit.task import Task


class Withdrawals:
    """Claims attempts that must not start, and reports whether a worker was first. The wake-up of
    the task repeats what a failure or a crash leaves undone.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        report: Callable[[str, Event], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._clock = clock
        self._report = report
        self._leaving = leaving
        self._running: set[tuple[str, str]] = set()

    def start(self, task: Task, order: WithdrawCommand) -> None:
        """Withdraw the command of an attempt, unless that is in progress."""
        key = (task.task_id, order.token)
        if key not in self._running:
            self._running.add(key)
            self._group.start_soon(self._withdraw, task, order)

    async def _withdraw(self, task: Task, order: WithdrawCommand) -> None:
        message = "A command was not withdrawn"
        try:
            with failures_logged(
                message, action="withdrawal_failed", task_id=task.task_id, trace=task.spec.trace
            ):
                event = await awaited(self._claimed(task, order), ending=self._leaving)
                await awaited(self._report(task.task_id, event), ending=self._leaving)
        finally:
            self._running.discard((task.task_id, order.token))

    async def _claimed(self, task: Task, order: WithdrawCommand) -> Event:
        """Claim the attempt. Return that it is withdrawn, or that the worker with the earlier claim
        has started it.
        """
        store, node_id = self._store.artifacts, task.spec.plan.ids[order.index]
        own = Claim(CANCELLED, self._clock.now(), CANCELLED)
        await store.put([claim_record(task.task_id, node_id, order.token, own)])
        first = await read_claim(store, task.task_id, node_id, order.token) or own
        if first.owner == CANCELLED:
            return CommandWithdrawn(order.index, order.attempt, order.token)
        return NodeStarted(
            task_id=task.task_id,
            index=order.index,
            attempt=order.attempt,
            token=order.token,
            worker_id=first.owner,
            at=first.at,
        )
