"""Silent workers and nodes are noticed in time, with the defaults or as configured.

Slow ones are left alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from flowkit import Coordinator, CoordinatorConfig, TaskView, WorkerConfig
from flowkit._records.worker_sessions import WorkerSession, end_session, sessions_of
from flowkit.errors import NotRunning
from flowkit.messages import NodeStarted, encode
from flowkit.protocols import Delivery, Message, Subscription
from flowkit.worker import RunContext, Worker, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.coordinator.lost_messages import EVENTS, Recording, Work, cluster_of, first
from tests.store_records import put_session

DEFAULTS = CoordinatorConfig()
QUICK = CoordinatorConfig(
    heartbeat_soft_sec=1, heartbeat_hard_sec=2, lease_ttl_sec=2, scheduler_tick_sec=1
)
HOUR = 3600.0


class Runs:
    """The start time and worker of each attempt; only the last one ends."""

    def __init__(self, cluster: Cluster, *, last: int = 2) -> None:
        self.began: list[tuple[int, str, float]] = []
        self._cluster = cluster
        self._last = last

    @property
    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(item: Any, ctx: RunContext) -> None:
            self.began.append((ctx.attempt, ctx.worker_id, self._cluster.clock.monotonic()))
            if ctx.attempt < self._last:
                await anyio.sleep_forever()

        return [work]


@asynccontextmanager
async def mortals(
    config: CoordinatorConfig, *, last: int = 2, hb_interval_sec: float = 3.0
) -> AsyncIterator[tuple[Cluster, Runs]]:
    async with Cluster(coordinator_config=config) as cluster:
        runs = Runs(cluster, last=last)
        for number in range(last):
            worker = WorkerConfig(
                worker_id=f"w{number}", hb_interval_sec=hb_interval_sec, stop_grace_sec=0
            )
            await cluster.add_worker(runs.handlers, worker)
        yield cluster, runs


class SlowReports(InMemoryBus):
    """A bus whose reports reach the coordinator when ``may_be_read`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_be_read = anyio.Event()
        self.may_be_read.set()

    @asynccontextmanager
    async def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AsyncIterator[Any]:
        async with super().subscribe(topics, group=group, max_unacked=max_unacked) as inner:
            yield _Slow(inner, self) if EVENTS in topics else inner


class _Slow:
    def __init__(self, inner: Subscription, bus: SlowReports) -> None:
        self._inner, self._bus = inner, bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self, **limits: Any) -> Sequence[Delivery]:
        deliveries = await self._inner.receive(**limits)
        await self._bus.may_be_read.wait()
        return deliveries


def one(**fields: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "n", "type": "work", **fields}]}


async def until_begun(cluster: Cluster, runs: Runs, count: int) -> None:
    while len(runs.began) < count:
        await cluster.clock.sleep(0.05)


async def die(cluster: Cluster, runs: Runs) -> float:
    """Kill the worker that began last, without a report. Return the time."""
    (worker,) = (worker for worker in cluster.workers if worker.worker_id == runs.began[-1][1])
    await kill(worker, cluster)
    return cluster.clock.monotonic()


async def kill(worker: Worker, cluster: Cluster) -> None:
    """Kill a worker without a report."""
    cluster.workers.remove(worker)
    assert worker._service is not None
    worker._service.host.cancel()
    await asyncio.wait([worker._service.host])


async def workers_of(cluster: Cluster) -> list[WorkerSession]:
    """Return the sessions of workers."""
    return [one for one in await sessions_of(cluster.store) if not one.is_coordinator]


@pytest.mark.parametrize("ran", [0.0, 7.0, HOUR], ids=["at once", "after seconds", "after an hour"])
@pytest.mark.parametrize(
    ("config", "hb_interval_sec", "within"),
    [(DEFAULTS, 3.0, 30.0), (QUICK, 0.5, 4.0)],
    ids=["with the defaults", "as configured"],
)
async def test_a_dead_worker_s_node_runs_elsewhere(
    ran: float, config: CoordinatorConfig, hb_interval_sec: float, within: float
) -> None:
    async with mortals(config, hb_interval_sec=hb_interval_sec) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        await cluster.clock.sleep(ran)
        died = await die(cluster, runs)
        view = await cluster.client.wait(task_id, 100)
    (_, first, _), (attempt, second, began) = runs.began
    assert (view.status, attempt) == ("finished", 2)
    assert first != second
    assert began - died <= within


async def test_a_worker_that_was_stopped_is_not_reported_as_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mortals(DEFAULTS) as (cluster, _):
        await cluster.stop_worker(cluster.workers[0])
        await cluster.clock.sleep(HOUR)
    assert "lost:" not in caplog.text
    assert "silent" not in caplog.text


async def test_a_worker_that_was_killed_is_reported_as_lost_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mortals(DEFAULTS) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        await die(cluster, runs)
        await cluster.client.wait(task_id, 100)
        await end_session(
            cluster.store, runs.began[0][1]
        )  # as in a store that deletes old sessions
        await cluster.clock.sleep(HOUR)
    assert [record.getMessage() for record in caplog.records if "are lost:" in record.message] == [
        f"Workers are lost: {runs.began[0][1]}"
    ]


async def test_the_session_of_a_worker_that_was_lost_long_ago_is_deleted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Cluster(coordinator_config=QUICK) as cluster:
        await put_session(cluster.store, WorkerSession("killed", ("work",), 1, 0.0))
        alive = WorkerConfig(worker_id="alive", hb_interval_sec=0.5)
        await cluster.add_worker(Runs(cluster).handlers, alive)
        await cluster.clock.sleep(HOUR)
        assert {one.worker_id for one in await workers_of(cluster)} == {"alive", "killed"}
        await cluster.clock.sleep(HOUR / 4)
        assert [one.worker_id for one in await workers_of(cluster)] == ["alive"]
    assert caplog.text.count("Workers are lost: killed") == 1


async def test_a_late_attempt_with_a_long_lease_is_lost_too() -> None:
    async with mortals(QUICK, last=9, hb_interval_sec=0.5) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one(retry_policy={"max": 8}))
        for count in range(1, 9):
            await until_begun(cluster, runs, count)
            await die(cluster, runs)
        assert (await cluster.client.wait(task_id, HOUR)).status == "finished"


async def test_a_blocked_worker_whose_session_was_deleted_has_one_again_when_it_continues() -> None:
    async with Cluster(coordinator_config=QUICK) as cluster:
        session = WorkerSession("blocked", ("work",), 1, 0.0)
        await put_session(cluster.store, session)
        await cluster.clock.sleep(HOUR + HOUR / 4)
        assert await workers_of(cluster) == []
        await put_session(cluster.store, replace(session, beat=2))
        await cluster.clock.sleep(100)
        assert [one.beat for one in await workers_of(cluster)] == [2]


async def test_a_worker_that_is_declared_lost_loses_its_runs_at_once() -> None:
    async with mortals(DEFAULTS) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        died = await die(cluster, runs)
        (coordinator,) = cluster.coordinators
        await coordinator.declare_lost(runs.began[0][1])
        view = await cluster.client.wait(task_id, 10)
    (_, first, _), (attempt, second, began) = runs.began
    assert (view.status, attempt) == ("finished", 2)
    assert first != second
    assert began - died < 2  # the pause before the first retry


async def test_a_node_whose_start_is_reported_after_its_worker_was_declared_lost_runs_soon() -> (
    None
):
    bus = Recording()
    bus.loses = first(NodeStarted)
    work = Work(seconds=HOUR)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=one())
        while not work.runs:
            await cluster.clock.sleep(0.1)
        (worker,), (coordinator,) = cluster.workers, cluster.coordinators
        await kill(worker, cluster)
        await coordinator.declare_lost(worker.worker_id)
        work.seconds = 0
        await cluster.add_worker(work.handlers)
        (late, *_) = (report for report in bus.published if isinstance(report, NodeStarted))
        await bus.publish([Message(EVENTS, encode(late), task_id, {})])
        view = await cluster.client.wait(task_id, 3)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 2)


async def test_reports_of_a_worker_that_is_declared_lost_are_read_first() -> None:
    bus = SlowReports()
    work = Work(seconds=10)
    async with cluster_of(bus, work) as cluster:
        task_id = await cluster.client.create_task(graph=one(retry_policy={"max": 0}))
        while not work.runs:
            await cluster.clock.sleep(0.1)
        await cluster.clock.sleep(5)
        bus.may_be_read = anyio.Event()
        await cluster.clock.sleep(6)
        (worker,), (coordinator,) = cluster.workers, cluster.coordinators
        await kill(worker, cluster)
        async with anyio.create_task_group() as group:
            group.start_soon(coordinator.declare_lost, worker.worker_id)
            await cluster.clock.sleep(1)
            bus.may_be_read.set()
        view = await cluster.client.wait(task_id, 10)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 1)


async def test_only_a_running_coordinator_declares_workers_lost() -> None:
    coordinator = Coordinator(db="memory://liveness")
    with pytest.raises(NotRunning):
        await coordinator.declare_lost("w")


async def test_a_node_runs_elsewhere_though_its_coordinator_died_with_its_worker() -> None:
    async with mortals(DEFAULTS) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        # By now, coordinators check only every five minutes.
        await cluster.clock.sleep(HOUR)
        await die(cluster, runs)
        await cluster.coordinators.pop().stop()
        await cluster.add_coordinator()
        view = await cluster.client.wait(task_id, 30)
    assert view.status == "finished"


async def test_a_paused_task_s_dead_worker_is_noticed_as_well() -> None:
    async with mortals(DEFAULTS) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        await cluster.client.pause(task_id)
        await cluster.coordinators.pop().stop()
        await die(cluster, runs)
        await cluster.add_coordinator()
        await cluster.clock.sleep(30)
        assert (await cluster.client.get_task(task_id)).nodes["n"].reason_code == "worker_lost"
        await cluster.client.resume(task_id)
        assert (await cluster.client.wait(task_id, 10)).status == "finished"


@pytest.mark.parametrize("ran", [1.0, HOUR], ids=["at once", "after an hour"])
async def test_a_worker_that_was_killed_and_starts_again_with_its_id_leaves_its_runs_at_once(
    ran: float,
) -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        runs = Runs(cluster)
        config = WorkerConfig(worker_id="w", stop_grace_sec=0)
        await cluster.add_worker(runs.handlers, config)
        task_id = await cluster.client.create_task(graph=one())
        await until_begun(cluster, runs, 1)
        await cluster.clock.sleep(ran)
        died = await die(cluster, runs)
        await cluster.add_worker(runs.handlers, config)
        view = await cluster.client.wait(task_id, 100)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 2)
    # two heartbeats of the killed process and a second, a look of the coordinator, and the pause
    # before the retry
    assert runs.began[1][2] - died <= 7 + 10 / 3 + 2


async def test_a_run_of_a_restarted_worker_s_new_process_goes_on() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        runs = Runs(cluster, last=1)
        config = WorkerConfig(worker_id="w", stop_grace_sec=0)
        await cluster.add_worker(runs.handlers, config)
        await cluster.clock.sleep(10)
        await kill(cluster.workers[0], cluster)
        slow = Runs(cluster, last=9)
        await cluster.add_worker(slow.handlers, config)
        await cluster.client.create_task(graph=one())
        await cluster.clock.sleep(HOUR)
    assert [attempt for attempt, *_ in slow.began] == [1]


async def test_leases_double_with_each_attempt() -> None:
    async with mortals(DEFAULTS, last=4) as (cluster, runs):
        policy = {"max": 5, "backoff_sec": 1, "multiplier": 1, "jitter": 0}
        task_id = await cluster.client.create_task(graph=one(retry_policy=policy))
        silences = []
        for number in range(1, 4):
            await until_begun(cluster, runs, number)
            died = await die(cluster, runs)
            await until_begun(cluster, runs, number + 1)
            silences.append(runs.began[-1][2] - died)
        view = await cluster.client.wait(task_id, 10)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 4)
    assert [round(silence / 20) for silence in silences] == [1, 2, 4]


async def test_a_worker_that_is_only_slow_to_renew_keeps_its_node() -> None:
    async with mortals(DEFAULTS, hb_interval_sec=15.0) as (cluster, runs):
        task_id = await cluster.client.create_task(graph=one())
        await cluster.clock.sleep(HOUR)
        assert (await cluster.client.get_task(task_id)).nodes["n"].attempt == len(runs.began) == 1


async def test_reports_that_came_while_every_coordinator_was_away_are_all_applied() -> None:
    async with Cluster(
        coordinators=2, coordinator_config=DEFAULTS, worker_config=WorkerConfig()
    ) as cluster:

        @handler("work")
        async def work(item: Any, ctx: RunContext) -> str:
            await cluster.clock.sleep(60)
            return ctx.node_id

        await cluster.add_worker([work])
        nodes = [{"node_id": f"n{number}", "type": "work"} for number in range(20)]
        last = {
            "node_id": "last",
            "type": "work",
            "depends_on": [node["node_id"] for node in nodes],
        }
        task_ids = [
            await cluster.client.create_task(graph={"nodes": [*nodes, last]}) for _ in range(5)
        ]
        await cluster.clock.sleep(30)
        while cluster.coordinators:
            await cluster.coordinators.pop().stop()
        await cluster.client.cancel(task_ids[0])
        await cluster.clock.sleep(600)
        assert (await cluster.client.get_task(task_ids[1])).nodes["n0"].status != "finished"
        await cluster.add_coordinator()
        views = [await cluster.client.wait(task_id, 600) for task_id in task_ids]
    assert [str(view.status) for view in views] == ["cancelled", *["finished"] * 4]
    assert all(
        node.result == name and node.attempt == 1
        for view in views[1:]
        for name, node in view.nodes.items()
    )


# ---------------------------------------------------------------- time limits


class Stubborn:
    """A node that neither ends nor reports."""

    def __init__(self) -> None:
        self.attempts: list[int] = []

    @property
    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(item: Any, ctx: RunContext) -> None:
            self.attempts.append(ctx.attempt)
            await anyio.sleep_forever()

        @handler("flaky")
        async def flaky(item: Any, ctx: RunContext) -> None:
            self.attempts.append(ctx.attempt)
            raise RuntimeError("no")

        return [work, flaky]


async def ended(
    graph: dict[str, Any], *, attempts: list[int], **fields: Any
) -> tuple[TaskView, float]:
    """Return the final view of a task of stubborn nodes, and the seconds that it took."""
    stubborn = Stubborn()
    async with Cluster(
        handlers=stubborn.handlers,
        coordinator_config=DEFAULTS,
        worker_config=WorkerConfig(cancel_grace_sec=1),
    ) as cluster:
        began = cluster.clock.monotonic()
        view = await cluster.run(graph, timeout=10_000, **fields)
        took = cluster.clock.monotonic() - began
    assert stubborn.attempts == attempts
    return view, took


RETRIES = {"retry_policy": {"max": 2, "backoff_sec": 10, "multiplier": 1, "jitter": 0}}


async def test_a_node_that_no_worker_begins_fails_in_time() -> None:
    view, took = await ended(
        one(type="missing", timeouts={"schedule_to_start_sec": 30}, **RETRIES), attempts=[]
    )
    assert (view.status, view.nodes["n"].reason_code, view.nodes["n"].attempt) == (
        "failed",
        "schedule_to_start_timeout",
        3,
    )
    assert took == pytest.approx(3 * 30 + 2 * 10, abs=1)


async def test_a_node_that_runs_too_long_fails_in_time() -> None:
    view, took = await ended(
        one(timeouts={"start_to_close_sec": 30}, **RETRIES), attempts=[1, 2, 3]
    )
    assert (view.status, view.nodes["n"].reason_code, view.nodes["n"].attempt) == (
        "failed",
        "start_to_close_timeout",
        3,
    )
    assert took == pytest.approx(3 * 30 + 2 * 10, abs=1)


async def test_a_node_without_a_heartbeat_fails_in_time_though_its_worker_answers_for_it() -> None:
    view, took = await ended(one(timeouts={"heartbeat_sec": 50}, **RETRIES), attempts=[1, 2, 3])
    assert (view.status, view.nodes["n"].reason_code, view.nodes["n"].attempt) == (
        "failed",
        "heartbeat_timeout",
        3,
    )
    assert took == pytest.approx(3 * 50 + 2 * 10, abs=1)


async def test_a_node_is_not_tried_again_beyond_its_budget() -> None:
    policy = {"max": 100, "backoff_sec": 10, "multiplier": 1, "jitter": 0, "budget_sec": 35}
    view, took = await ended(one(type="flaky", retry_policy=policy), attempts=[1, 2, 3, 4])
    assert (view.status, view.nodes["n"].reason_code) == ("failed", "unexpected_error")
    assert took == pytest.approx(30, abs=1)


async def test_a_task_fails_at_its_deadline() -> None:
    view, took = await ended(one(), attempts=[1], deadline_sec=100)
    assert (view.status, view.error, view.nodes["n"].status) == (
        "failed",
        "the task's deadline passed",
        "cancelled",
    )
    assert 100 <= took <= 100 + DEFAULTS.cancel_grace_sec + 1


@pytest.mark.parametrize("most", [0, 1, 4])
async def test_max_bounds_the_attempts_exactly(most: int) -> None:
    policy = {"max": most, "backoff_sec": 1}
    view, _ = await ended(one(type="flaky", retry_policy=policy), attempts=list(range(1, most + 2)))
    assert (view.status, view.nodes["n"].attempt) == ("failed", most + 1)


async def test_a_running_node_that_does_not_obey_is_cancelled_within_the_grace() -> None:
    enough = anyio.Event()

    @handler("work")
    async def work(item: Any) -> None:
        with anyio.CancelScope(shield=True):
            await enough.wait()

    async with Cluster(
        handlers=[work], coordinator_config=DEFAULTS, worker_config=WorkerConfig()
    ) as cluster:
        task_id = await cluster.client.create_task(graph=one())
        await cluster.clock.sleep(5)
        asked = cluster.clock.monotonic()
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id, 60)
        took = cluster.clock.monotonic() - asked
        enough.set()
    assert view.status == "cancelled"
    assert took <= DEFAULTS.cancel_grace_sec + 0.1
