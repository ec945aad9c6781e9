"""Processes that a task needs and that do not run are named wherever the task is shown."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import anyio

from flowkit import TaskView, WorkerConfig
from flowkit._records.heartbeats import is_silent, process_info
from flowkit._records.worker_sessions import WorkerSession, end_session, sessions_of
from flowkit.cli._missing_processes import missing_processes
from flowkit.cli._process_checks import check_processes
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import TWO
from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation
from tests.coordinator.test_liveness import DEFAULTS, kill
from tests.store_records import put_session

NO_COORDINATOR = "The task does not continue: no coordinator runs. Start `flowkit coordinator`, "
WORKER = WorkerConfig(worker_id="w", stop_grace_sec=0)


@handler("work")
async def hold(item: Any) -> None:
    await anyio.sleep_forever()


async def running(cluster: Cluster) -> TaskView:
    """Return a task whose first node runs on the worker."""
    task_id = await cluster.client.create_task(graph=TWO)
    while (view := await cluster.client.get_task(task_id)).nodes["a"].status != "running":
        await cluster.clock.sleep(0.1)
    return view


async def test_nothing_is_missing_while_a_coordinator_and_the_worker_run() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        await cluster.add_worker([hold], WORKER)
        view = await running(cluster)
        await cluster.clock.sleep(600)
        assert await missing_processes(cluster.client, view) == []
        assert await cluster.client.explain(view.id, "a") == "'a' is running on 'w'."
        assert await cluster.client.explain(view.id, "b") == "'b' waits for 'a'."


async def test_a_killed_worker_and_the_lack_of_a_coordinator_are_named() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        await cluster.add_worker([hold], WORKER)
        view = await running(cluster)
        await cluster.coordinators.pop().stop()
        await kill(cluster.workers[0], cluster)
        await cluster.clock.sleep(10)
        worker, coordinator = await missing_processes(cluster.client, view)
        assert worker.startswith("Worker 'w' (process ")
        assert worker.endswith(
            " has sent no heartbeat for 10 s: it has ended, is blocked, or cannot write to the"
            " store."
        )
        assert coordinator.startswith(NO_COORDINATOR)
        explained = await cluster.client.explain(view.id, "a")
        assert explained == f"'a' is running on 'w'. {worker} {coordinator}"
        assert await cluster.client.explain(view.id, "b") == f"'b' waits for 'a'. {coordinator}"


async def test_a_coordinator_that_is_only_silent_is_not_said_to_have_ended() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        view = await submitted(cluster)
        await cluster.clock.sleep(1)
        (session,) = await sessions_of(cluster.store)
        await cluster.coordinators.pop().stop()
        await put_session(cluster.store, session)
        await cluster.clock.sleep(19)
        *_, coordinator = await missing_processes(cluster.client, view)
        assert coordinator.startswith("The task does not continue: the coordinator (process ")
        assert coordinator.endswith(
            " has sent no heartbeat for 20 s: it has ended, is blocked, or cannot write to the"
            " store. See `flowkit doctor`."
        )
        ended = replace(session, info=session.info | {"pid": str(ended_process())})
        await put_session(cluster.store, ended)
        *_, coordinator = await missing_processes(cluster.client, view)
        assert coordinator.startswith(NO_COORDINATOR)


async def submitted(cluster: Cluster) -> TaskView:
    return await cluster.client.get_task(await cluster.client.create_task(graph=TWO))


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        return ended.pid


async def test_a_worker_that_ended_its_session_is_named() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        await cluster.add_worker([hold], WORKER)
        view = await running(cluster)
        await cluster.coordinators.pop().stop()
        await kill(cluster.workers[0], cluster)
        await end_session(cluster.store, "w")
        assert (await missing_processes(cluster.client, view))[0] == "Worker 'w' has ended."


async def test_nothing_is_missing_for_a_task_that_has_ended() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        view = await running_to_its_end(cluster)
        await cluster.coordinators.pop().stop()
        assert await missing_processes(cluster.client, view) == []
        assert (
            await cluster.client.explain(view.id, "b")
            == "'b' was cancelled: the task was cancelled."
        )


async def running_to_its_end(cluster: Cluster) -> TaskView:
    view = await submitted(cluster)
    await cluster.client.cancel(view.id)
    return await cluster.client.wait(view.id, 100)


def test_one_missing_heartbeat_is_enough_if_the_process_of_this_machine_has_ended() -> None:
    alive = process_info(3.0) | {"renewed_at": "100"}
    for info, silent in ((alive, False), (alive | {"pid": str(ended_process())}, True)):
        session = WorkerSession("w", ("work",), 1, 0.0, info)
        assert not is_silent(session, now=103.5)
        assert is_silent(session, now=105) is silent
        assert is_silent(session, now=108)


def test_show_names_what_is_missing(cli: Cli, installation: Installation) -> None:
    installation.submit(ONE, task_id="t1")
    shown = cli("show", "t1", "--db", installation.address).stdout.splitlines()
    assert "No live worker serves the role 'work'." in shown
    assert shown[-1].startswith(NO_COORDINATOR)
    installation.do(lambda client: client.cancel("t1"))
    assert NO_COORDINATOR not in cli("show", "t1", "--db", installation.address).stdout


async def test_doctor_reports_tasks_that_no_coordinator_continues() -> None:
    async with Cluster(coordinator_config=DEFAULTS) as cluster:
        await running_to_its_end(cluster)
        (coordinators, _) = await check_processes(cluster.store, cluster.clock)
        (coordinator,) = cluster.coordinators
        assert (coordinators.ok, coordinators.detail) == (True, f"1: {coordinator.coordinator_id}")
        await cluster.coordinators.pop().stop()
        (coordinators, _) = await check_processes(cluster.store, cluster.clock)
        assert (coordinators.ok, coordinators.detail) == (True, "0")
        await cluster.client.create_task(graph=TWO)
        (coordinators, _) = await check_processes(cluster.store, cluster.clock)
        assert (coordinators.ok, coordinators.detail) == (False, "0, and tasks have not ended")
        assert "flowkit coordinator" in coordinators.remedy
