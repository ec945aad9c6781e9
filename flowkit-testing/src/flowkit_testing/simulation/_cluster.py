"""The cluster that a scenario works with.

It has the shape of :class:`flowkit_testing.Cluster`, in a world with faults.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from random import Random
from typing import Any, TypeVar

from flowkit import Client, Coordinator, CoordinatorConfig, TaskView, WorkerConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Clock
from flowkit.worker import Worker
from flowkit_testing._broker import Broker
from flowkit_testing._store import InMemoryStore
from flowkit_testing.simulation._bus import BusServer, SimBus
from flowkit_testing.simulation._changes import ChangeLedger
from flowkit_testing.simulation._client import PatientClient
from flowkit_testing.simulation._executions import Execution
from flowkit_testing.simulation._fault_injection import FaultInjector
from flowkit_testing.simulation._faults import Faults
from flowkit_testing.simulation._invariants import Invariant, Invariants
from flowkit_testing.simulation._order import Order
from flowkit_testing.simulation._process import Process, State
from flowkit_testing.simulation._store import SimStore, StoreServer
from flowkit_testing.simulation._watched_handlers import watched
from flowkit_testing.simulation._world import World

COORDINATOR = CoordinatorConfig(
    heartbeat_soft_sec=5,
    heartbeat_hard_sec=10,
    lease_ttl_sec=10,
    scheduler_tick_sec=5,
    cancel_grace_sec=5,
    outbox_max_retry=4,
)
WORKER = WorkerConfig(hb_interval_sec=2, stop_grace_sec=10, cancel_grace_sec=4)
"""Default configuration of simulated processes."""


T = TypeVar("T")


class ProcessDied(Exception):
    """The process that was to do something has died."""


class Post:
    """A position in the cluster. When its process dies, another process takes the position."""

    def __init__(self, role: str, body: Callable[[Process], Awaitable[None]]) -> None:
        self.role = role
        self.body = body
        self.wanted = True
        """If True, a process that dies here is replaced."""
        self.process: Process | None = None

    @property
    def service(self) -> Any:
        """Return the coordinator or worker at this position, or None if no process is alive here.

        It is a :class:`~flowkit.Coordinator` or a :class:`~flowkit.worker.Worker`.
        """
        return self.process.service if self.process is not None and self.process.alive else None


class SimCluster:
    """Coordinators and workers in processes that can die anywhere, on a faulty bus and store.

    The bus and the store fail as their protocols allow. A scenario receives the cluster, submits
    with :meth:`run` or :attr:`client`, and checks the outcome. Its own code runs in a process
    without faults, and its client retries when the store is unreachable.
    """

    def __init__(
        self,
        world: World,
        *,
        plugins: Plugins,
        workers: int,
        invariants: Collection[Invariant] = (),
        coordinator_config: CoordinatorConfig = COORDINATOR,
        worker_config: WorkerConfig = WORKER,
        broker: Broker | None = None,
    ) -> None:
        self.world = world
        self.random = Random(f"scenario of {world.seed}")
        """A random generator for the scenario, derived from the seed."""
        self.posts: list[Post] = []
        self._plugins = plugins
        self._worker_count = workers
        self._coordinator_config = coordinator_config
        self._worker_config = worker_config
        self._store = StoreServer(world)
        self._bus = BusServer(world, broker or Broker(partitions=4))
        self.invariants = Invariants(self._store, plugins, list(invariants))
        self._bus.on_publish.append(self.invariants.published)
        self._bus.on_arrival.append(self.invariants.arrived)
        world.on_begin = self.invariants.began
        order = Order(self._store, world)
        self._bus.on_arrival.append(order.arrived)
        self._bus.on_ack.append(order.acknowledged)
        self._changes: ChangeLedger | None = None
        if coordinator_config.publish_changes:
            topic = coordinator_config.changes_topic
            self._changes = ChangeLedger(topic, self.invariants.records)
            self._bus.on_arrival.append(self._changes.arrived)
            self._store.on_commit.append(self._changes.committed)
        world.on_process_end = self._replace
        world.on_crash = self._bus.lost
        self._injector = FaultInjector(
            world,
            self._bus,
            self._store,
            stop=self._stop_member,
            join=self._one_more,
            heal=self._heal,
        )
        self.client: PatientClient
        self.clock: Clock

    # ------------------------------------------------------------ members

    @property
    def coordinators(self) -> list[Post]:
        return [post for post in self.posts if post.role == "coordinator" and post.wanted]

    @property
    def workers(self) -> list[Post]:
        return [post for post in self.posts if post.role == "worker" and post.wanted]

    @property
    def store(self) -> InMemoryStore:
        """Return the store for inspection, without faults."""
        return self._store.store

    def use_store(self, store: InMemoryStore) -> None:
        """Use this empty store from here on, for example a double that is broken on purpose."""
        self._store.store = store
        self.invariants.read_from(store)

    @property
    def seed(self) -> int:
        return self.world.seed

    @property
    def faults(self) -> Faults:
        return self.world.faults

    @property
    def injected(self) -> Counter[str]:
        """Return the number of injected faults by kind."""
        return self.world.injected

    @property
    def executions(self) -> list[Execution]:
        """Return all calls of handlers so far."""
        return self.world.executions

    def log(self, text: str) -> None:
        """Add a line to the event log."""
        self.world.note("scenario", text)

    # ------------------------------------------------------------ starts and stops

    async def add_coordinator(self, config: CoordinatorConfig | None = None) -> Post:
        """Add a coordinator."""
        return await self._fill(
            "coordinator", self._coordinator_body(config or self._coordinator_config)
        )

    async def add_worker(self, handlers: Any, config: WorkerConfig | None = None) -> Post:
        """Add a worker."""
        return await self._fill(
            "worker", self._worker_body(handlers, config or self._worker_config)
        )

    async def stop_worker(self, worker: Post, grace: float | None = None) -> None:
        """Stop a worker in order without replacing it.

        Return when it has ended, with or without an error.
        """
        worker.wanted = False
        process = worker.process
        if process is not None and process.alive:
            process.stop(grace)
            await process.ended.wait()

    async def crash(self, post: Post) -> None:
        """Kill the process at this position. A new process takes its place later."""
        await asyncio.sleep(0)
        if post.process is not None:
            self.world.crash(post.process, "by the scenario")

    async def within(self, post: Post, call: Callable[[Any], Awaitable[T]]) -> T:
        """Call a function with the coordinator or worker of a position, as code of its process.

        Raises:
            ProcessDied: the process died before the call was done.
        """
        process = post.process
        if process is None or not process.alive or process.service is None:
            raise ProcessDied(f"there is no {post.role}")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await call(process.service)
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        process.start_soon(run)
        died = asyncio.ensure_future(process.ended.wait())
        waits: list[asyncio.Future[Any]] = [done, died]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ProcessDied(f"{process.name} died")
        died.cancel()
        return done.result()

    async def _fill(self, role: str, body: Callable[[Process], Awaitable[None]]) -> Post:
        post = Post(role, body)
        self.posts.append(post)
        self._occupy(post)
        await self.filled(post)
        return post

    async def filled(self, post: Post) -> None:
        """Return when a process works at this position."""
        while post.wanted and (
            post.process is None or not post.process.ready.is_set() or not post.process.alive
        ):
            process = post.process
            if process is None or not process.alive:
                await asyncio.sleep(0.05)
            else:
                waits = [
                    asyncio.ensure_future(process.ready.wait()),
                    asyncio.ensure_future(process.ended.wait()),
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    def _occupy(self, post: Post) -> None:
        if post.wanted and (post.process is None or not post.process.alive):
            post.process = self.world.start(post.role, post.body)

    def _replace(self, process: Process) -> None:
        for post in self.posts:
            if post.process is process and post.wanted:
                delay = (
                    self.world.between(0.05, self.world.faults.restart_sec)
                    if self.world.active
                    else 0.1
                )
                self.world.call(delay, self._occupy, post)

    def _heal(self) -> None:
        for post in self.posts:
            self._occupy(post)

    def _stop_member(self) -> None:
        staff = [
            post
            for post in self.posts
            if post.wanted and post.process is not None and post.process.state is State.RUNNING
        ]
        if staff:
            post = self.world.chances.choice(staff)
            assert post.process is not None
            grace = self.world.chances.choice([0.0, 0.5, None])
            self.world.inject("stop", post.process.name, f"grace {grace}")
            post.process.stop(grace)

    def _one_more(self) -> None:
        workers = self.workers
        if workers:
            post = Post("worker", self.world.chances.choice(workers).body)
            self.posts.append(post)
            self._occupy(post)
            assert post.process is not None
            self.world.inject("join", post.process.name)

    # ------------------------------------------------------------ programs

    def _coordinator_body(self, config: CoordinatorConfig) -> Callable[[Process], Awaitable[None]]:
        async def body(process: Process) -> None:
            coordinator = process.service = Coordinator(
                cfg=config,
                bus=SimBus(self._bus, process),
                store=SimStore(self._store, process),
                clock=process.clock,
                plugins=self._plugins,
            )
            await coordinator.start()
            process.ready.set()
            await process.stopping.wait()
            await coordinator.stop()

        return body

    def _worker_body(
        self, handlers: Any, config: WorkerConfig
    ) -> Callable[[Process], Awaitable[None]]:
        noted = watched(handlers)
        self.invariants.roles_with_own_metrics.update(noted.own_metrics)

        async def body(process: Process) -> None:
            worker = process.service = Worker(
                cfg=config.model_copy(update={"worker_id": process.name})
                if config.worker_id is None
                else config,
                bus=SimBus(self._bus, process),
                store=SimStore(self._store, process),
                clock=process.clock,
                plugins=self._plugins,
                handlers=noted.handlers,
            )
            await worker.start()
            process.ready.set()
            await process.stopping.wait()
            await worker.stop(process.stop_grace)

        return body

    async def open(self, process: Process, *, coordinators: int, handlers: Any) -> None:
        """Start as the scenario's own process."""
        self.clock = process.clock
        crashing = self.world.faults.client_crash > 0
        self.client = PatientClient(
            submit=self._submit_elsewhere if crashing else None,
            on_retry=self._retries,
            on_resolve=self._resolve,
            on_run_now=self._run_now,
            on_signal=self._signalled,
            on_decision=self._decided,
            cfg=self._coordinator_config,
            bus=SimBus(self._bus, process),
            store=SimStore(self._store, process),
            clock=process.clock,
            plugins=self._plugins,
        )
        await self.client.start_patiently()
        posts = [
            Post("coordinator", self._coordinator_body(self._coordinator_config))
            for _ in range(coordinators)
        ]
        if handlers is not None:
            posts += [
                Post("worker", self._worker_body(handlers, self._worker_config))
                for _ in range(self._worker_count)
            ]
        self.posts += posts
        for post in posts:
            self._occupy(post)
        if not self.world.faults.any:
            for post in posts:
                await self.filled(post)

    def _retries(self, task_id: str) -> None:
        self.invariants.retries[task_id] += 1

    def _resolve(self, task_id: str, node_id: str) -> None:
        self.invariants.resolving.add((task_id, node_id))

    def _run_now(self, task_id: str, node_id: str) -> None:
        self.invariants.hurried.add((task_id, node_id))

    def _signalled(self, task_id: str, signal_id: str) -> None:
        self.invariants.signalled(task_id, signal_id)

    def _decided(self, task_id: str, node_id: str, choice: str, by: str) -> None:
        self.invariants.decided(task_id, node_id, choice, by)

    async def _submit_elsewhere(self, submission: dict[str, Any]) -> str:
        """Submit from a process that may crash.

        After a crash, another process submits again with the same id.
        """
        while True:
            stored: list[str] = []

            async def body(process: Process, stored: list[str] = stored) -> None:
                client = Client(
                    cfg=self._coordinator_config,
                    bus=SimBus(self._bus, process),
                    store=SimStore(self._store, process),
                    clock=process.clock,
                    plugins=self._plugins,
                )
                async with client:
                    stored.append(await client.create_task(**submission))

            process = self.world.start("client", body)
            await process.ended.wait()
            if stored:
                return stored[0]
            if process.failed_permanently():
                assert process.error is not None
                raise process.error
            await self.clock.sleep(0.5)

    # ------------------------------------------------------------ submissions

    async def run(
        self,
        graph: Any,
        *,
        handlers: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **submission: Any,
    ) -> TaskView:
        """Submit a graph and return the task when it has ended.

        Workers of this run alone serve ``handlers``. ``submission`` holds further arguments of
        :meth:`flowkit.Client.create_task`.
        """
        own = (
            []
            if handlers is None
            else [await self.add_worker(handlers) for _ in range(self._worker_count)]
        )
        try:
            task_id = await self.client.create_task(graph=graph, params=params, **submission)
            return await self.client.wait(task_id, timeout)
        finally:
            for worker in own:
                await self.stop_worker(worker)

    # ------------------------------------------------------------ end of the scenario

    @property
    def quiet_after_sec(self) -> float:
        """Return the time after which there are no faults."""
        return self._injector.period

    async def settle(self, after_sec: float) -> None:
        """End the faults. Return when every task has ended, all changes that are to be published
        are, and no further writes follow.
        """
        self._injector.quiet()
        while self._unsettled():  # noqa: ASYNC110 - time passes as fast as it can
            await asyncio.sleep(1.0)
        await asyncio.sleep(after_sec)
        self.invariants.check_end(list(self.client.promised), self.client.told)
        if self._store.damaged:
            listed = {view.id: view for view in (await self.client.list_tasks(limit=1000)).items}
            self.invariants.check_damaged(
                listed, {execution.task_id for execution in self.executions}
            )

    def _unsettled(self) -> list[str]:
        """Return the tasks that have not ended, or whose changes are not all published."""
        if (found := self.invariants.open_tasks()) or self._changes is None:
            return found
        return self._changes.unpublished(self.invariants.ended_tasks())

    async def explain_open(self) -> list[str]:
        """Explain in sentences why each node that has not ended is not running."""
        lines = []
        for task_id in self.invariants.open_tasks():
            view = await self.client.get_task(task_id)
            lines.append(f"task {task_id} is {view.status}")
            for node_id, node in view.nodes.items():
                if not node.status.terminal:
                    lines.append(
                        f"  node {node_id!r} is {node.status}:"
                        f" {await self.client.explain(task_id, node_id)}"
                    )
        return lines

    # ------------------------------------------------------------ assertions

    def times_executed(self, node_id: str, *, task_id: str | None = None) -> int:
        """Return the number of attempts of a node that began. Batches do not count."""
        return sum(
            execution.node_id == node_id
            and execution.batch_uid is None
            and task_id in (None, execution.task_id)
            for execution in self.executions
        )

    def assert_executed(
        self,
        node_id: str,
        *,
        times: int | None = None,
        at_least: int = 1,
        task_id: str | None = None,
    ) -> None:
        """Assert that a node was executed exactly ``times`` times, or ``at_least`` that often.

        Raises:
            AssertionError: it was not; the message lists all executions.
        """
        found = self.times_executed(node_id, task_id=task_id)
        wanted = f"at least {at_least} times" if times is None else f"{times} times"
        if found != times if times is not None else found < at_least:
            raise AssertionError(
                f"node {node_id!r} should be executed {wanted}, and was executed {found} times."
                f" {self._seen()}"
            )

    def assert_injected(self, kind: str, *, at_least: int = 1) -> None:
        """Assert that a kind of fault was injected.

        Raises:
            AssertionError: it was not; the message lists the injected faults.
        """
        if self.injected[kind] < at_least:
            seen = (
                ", ".join(f"{name} {count}" for name, count in sorted(self.injected.items()))
                or "nothing"
            )
            raise AssertionError(
                f"{kind} should happen at least {at_least} times, and happened"
                f" {self.injected[kind]} times. Injected faults: {seen}"
            )

    def assert_finished(self, view: TaskView) -> None:
        """Assert that a task finished, with every node that was not skipped.

        Raises:
            AssertionError: it did not; the message lists its nodes.
        """
        if view.status != "finished":
            nodes = "\n".join(
                f"  {node.node_id}: {node.status} {node.reason_code or ''} {node.error or ''}"
                for node in view.nodes.values()
            )
            raise AssertionError(
                f"task {view.id} is {view.status}: {view.error}\n{nodes}\n{self._seen()}"
            )

    def _seen(self) -> str:
        lines = "\n".join(f"  {execution}" for execution in self.executions)
        return f"Executions:\n{lines}" if lines else "Nothing was executed."
