"""In-process cluster on virtual time."""

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from math import inf
from typing import Any, Self

from flowkit import Client, Coordinator, CoordinatorConfig, TaskView, WorkerConfig
from flowkit.worker import Worker
from flowkit_testing._bus import InMemoryBus
from flowkit_testing._clock import ManualClock
from flowkit_testing._store import InMemoryStore
from flowkit_testing._waits import explain_task, lacks_workers

HOUR = 3600.0
DAY = 24 * HOUR

UNHURRIED_COORDINATOR = CoordinatorConfig(
    heartbeat_soft_sec=2 * DAY,
    heartbeat_hard_sec=4 * DAY,
    lease_ttl_sec=4 * DAY,
    scheduler_tick_sec=DAY,
    command_check_sec=DAY,
)
UNHURRIED_WORKER = WorkerConfig(
    hb_interval_sec=12 * HOUR, announce_interval_sec=DAY, pull_poll_ms_default=round(HOUR * 1000)
)
"""Worker configuration with long intervals.

Virtual time jumps from one deadline to the next, so fewer deadlines make it pass faster.
"""


class Cluster:
    """Coordinators and workers with an in-memory bus and store, on virtual time.

    ``async with Cluster() as cluster: view = await cluster.run(graph, handlers={...})``. Time
    advances whenever nothing else can run. Coordinators and workers are the real ones; only the
    bus, the store and the clock are in memory. By default, heartbeats are hours apart, so that long
    waits pass quickly. Pass other configurations if a test depends on these intervals.
    """

    def __init__(
        self,
        *,
        coordinators: int = 1,
        workers: int = 1,
        handlers: Any = None,
        bus: InMemoryBus | None = None,
        store: InMemoryStore | None = None,
        clock: ManualClock | None = None,
        coordinator_config: CoordinatorConfig = UNHURRIED_COORDINATOR,
        worker_config: WorkerConfig = UNHURRIED_WORKER,
        plugins: Collection[object] = (),
    ) -> None:
        """Create a cluster.

        With ``handlers``, the given number of ``workers`` serves them from the start. Otherwise
        each :meth:`run` starts its own workers.
        """
        self.bus = bus or InMemoryBus()
        self.store = store or InMemoryStore()
        self.clock = clock or ManualClock()
        self.coordinators: list[Coordinator] = []
        self.workers: list[Worker] = []
        self._counts = coordinators, workers
        self._handlers = handlers
        self._coordinator_config = coordinator_config
        self._worker_config = worker_config
        self._plugins = list(plugins)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.clock.auto())
            await stack.enter_async_context(self.bus)
            await stack.enter_async_context(self.store)
            self.client = await stack.enter_async_context(
                Client(
                    bus=self.bus,
                    store=self.store,
                    clock=self.clock,
                    plugins=self._plugins,
                    cfg=self._coordinator_config,
                )
            )
            stack.push_async_callback(self._stop_all)
            coordinators, workers = self._counts
            for _ in range(coordinators):
                await self.add_coordinator()
            if self._handlers is not None:
                for _ in range(workers):
                    await self.add_worker(self._handlers)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _stop_all(self) -> None:
        for worker in list(self.workers):
            await self.stop_worker(worker)
        while self.coordinators:
            await self.coordinators.pop().stop()

    async def add_coordinator(self, config: CoordinatorConfig | None = None) -> Coordinator:
        """Start another coordinator."""
        coordinator = Coordinator(
            cfg=config or self._coordinator_config,
            bus=self.bus,
            store=self.store,
            clock=self.clock,
            plugins=self._plugins,
        )
        await coordinator.start()
        self.coordinators.append(coordinator)
        return coordinator

    async def add_worker(self, handlers: Any, config: WorkerConfig | None = None) -> Worker:
        """Start another worker."""
        worker = Worker(
            cfg=config or self._worker_config,
            bus=self.bus,
            store=self.store,
            clock=self.clock,
            plugins=self._plugins,
            handlers=handlers,
        )
        await worker.start()
        self.workers.append(worker)
        return worker

    async def stop_worker(self, worker: Worker, grace: float | None = None) -> None:
        """Stop a worker. After ``grace`` seconds, it hands back its unfinished work."""
        self.workers.remove(worker)
        await worker.stop(grace)

    async def run(
        self,
        graph: Any = None,
        *,
        handlers: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = 365 * DAY,
        **submission: Any,
    ) -> TaskView:
        """Submit a graph, or a registered ``flow``, and return the task when it has ended.

        ``handlers`` are served by workers of this run only. ``timeout`` is in virtual seconds.
        ``submission`` are further arguments of :meth:`flowkit.Client.create_task`.

        Raises:
            TimeoutError: the task has not ended in this time; or when a virtual day has passed, it
                waits for nothing but roles that no worker serves. The message explains which nodes
                are not running, and why.
        """
        own = (
            []
            if handlers is None
            else [await self.add_worker(handlers) for _ in range(self._counts[1])]
        )
        try:
            task_id = await self.client.create_task(graph=graph, params=params, **submission)
            return await self._ended(task_id, inf if timeout is None else timeout)
        finally:
            for worker in own:
                await self.stop_worker(worker)

    async def _ended(self, task_id: str, timeout: float) -> TaskView:
        began = self.clock.monotonic()
        while True:
            left_sec = began + timeout - self.clock.monotonic()
            try:
                return await self.client.wait(task_id, min(left_sec, DAY))
            except TimeoutError:
                if left_sec > DAY and not await lacks_workers(self.client, task_id):
                    continue
            status = (await self.client.get_task(task_id)).status
            raise TimeoutError(
                f"task {task_id!r} is still {status} after {self.clock.monotonic() - began:g} s:"
                f" {await explain_task(self.client, task_id)}"
            )
