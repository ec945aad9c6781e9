"""Lists of workers, on a cluster in virtual time."""

from typing import Any

import anyio

from flowkit import WorkerConfig
from flowkit._records.worker_sessions import WorkerSession
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import ONE, die, work
from tests.store_records import put_session

QUICK = WorkerConfig(worker_id="b", hb_interval_sec=1, max_concurrency=3)


async def test_workers_are_listed_by_id_with_their_load() -> None:
    began, free = anyio.Event(), anyio.Event()

    @handler("wait")
    async def wait(item: Any) -> None:
        began.set()
        await free.wait()

    async with Cluster(coordinators=2) as cluster:
        await cluster.add_worker([work, wait], QUICK)
        await cluster.add_worker([work], WorkerConfig(worker_id="a"))
        graph = {"nodes": [{"node_id": "n", "type": "wait"}]}
        task_id = await cluster.client.create_task(graph=graph)
        await began.wait()
        await cluster.clock.sleep(1.5)
        first, second = await cluster.client.workers()
        assert (first.id, first.roles, first.running) == ("a", ["work"], 0)
        assert (second.id, second.roles) == ("b", ["wait", "work"])
        assert (second.running, second.slots, second.silent) == (1, 3, False)
        assert 0 <= cluster.clock.now() - second.last_heartbeat.timestamp() <= 1
        assert second.pid == first.pid > 0
        assert second.host
        assert second.version
        free.set()
        await cluster.client.wait(task_id)


async def test_coordinators_are_listed_by_id_and_those_without_heartbeats_are_silent() -> None:
    info = {"kind": "coordinator", "hb_interval_sec": "1"}
    dead = WorkerSession("dead", (), beat=1, started_at=5.0, info=info)
    async with Cluster(coordinators=2) as cluster:
        await put_session(cluster.store, dead)
        await cluster.add_worker([work])
        found = await cluster.client.coordinators()
        assert [one.id for one in found] == sorted(one.id for one in found)
        assert sorted((one.silent, one.pid > 0) for one in found) == [
            (False, True),
            (False, True),
            (True, False),
        ]


async def test_a_killed_worker_is_listed_as_silent_and_a_stopped_one_is_not_listed() -> None:
    async with Cluster() as cluster:
        killed = await cluster.add_worker([work], QUICK)
        stopped = await cluster.add_worker([work])
        await cluster.run(ONE)
        await cluster.stop_worker(stopped)
        await die(cluster, killed)
        await cluster.clock.sleep(10)
        (view,) = await cluster.client.workers()
        assert (view.id, view.silent) == ("b", True)


async def test_a_session_with_odd_values_is_listed_all_the_same() -> None:
    info = {"running": "²", "max_concurrency": "-1", "renewed_at": "inf"}
    session = WorkerSession("w", ("work",), beat=1, started_at=5.0, info=info)
    async with Cluster() as cluster:
        await put_session(cluster.store, session)
        (view,) = await cluster.client.workers()
        assert (view.running, view.slots, view.pid) == (0, 0, 0)
        assert view.last_heartbeat == view.started_at
