"""Coordinators, workers and verbs as processes, on a real Kafka and a real MongoDB."""

import json
import shutil
import signal
import sysconfig
from pathlib import Path
from typing import Any

import anyio
import pytest

from examples.stdlib_report.single_pass import single_pass
from flowkit import Coordinator
from tests.builders import chain
from tests.services.processes import ROOT, Process, Processes, until
from tests.services.support import Installation, ends_of, events_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PACKAGES = ("asyncio", "email", "json", "logging", "multiprocessing", "xml")
LEFT_OUT = ["test", "mime"]
WITHIN_SEC = 60


async def test_the_verbs_see_and_change_what_processes_do(processes: Processes) -> None:
    flow, gated = processes.folder / "flow.json", processes.folder / "gated.json"
    flow.write_text(json.dumps(chain("work", "work", "work")))
    gated.write_text(json.dumps(chain("gated", "work")))
    coordinator = processes.coordinator(worker_types="work,gated", cancel_grace_sec=0.5)
    worker = processes.worker(cancel_grace_sec=0.5)
    done = await processes.run("submit", flow, "--wait", "--json", "--label", "kind=quick")
    assert done.returncode == 0, done.stderr + coordinator.logged() + worker.logged()
    finished = json.loads(done.stdout)
    assert finished["status"] == "finished"
    running = (await processes.run("submit", gated, "--pipeline", "slow")).stdout.strip()
    await until(lambda: bool(processes.recorded("began")))
    said: dict[str, Any] = {}

    async def ask(name: str, *args: object) -> None:
        said[name] = await processes.run(*map(str, args))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "ls", "ls", "--json")
        group.start_soon(ask, "quick", "ls", "--json", "--label", "kind=quick")
        group.start_soon(ask, "show", "show", running)
        group.start_soon(ask, "doctor", "doctor", "--json")
    assert {item["id"]: item["status"] for item in json.loads(said["ls"].stdout)["items"]} == {
        finished["id"]: "finished",
        running: "running",
    }
    assert [item["id"] for item in json.loads(said["quick"].stdout)["items"]] == [finished["id"]]
    assert "pipeline: slow" in said["show"].stdout
    assert "gated" in said["show"].stdout
    report = json.loads(said["doctor"].stdout)
    assert report["ok"], report
    assert (said["doctor"].returncode, said["show"].returncode) == (0, 0)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, "watch", "watch", running, "--json")
        group.start_soon(ask, "cancel", "cancel", running, "--reason", "enough")
    assert said["cancel"].returncode == 0, said["cancel"].stderr
    assert said["watch"].returncode == 1
    events = [json.loads(line) for line in said["watch"].stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-1]["node_id"], events[-1]["status"]) == (None, "cancelled")
    coordinator.tell()
    worker.tell(signal.SIGINT)
    assert (await coordinator.end(), await worker.end()) == (0, 0)


async def running_node(
    coordinator: Coordinator, processes: Processes, **fields: Any
) -> tuple[str, Process]:
    """Start a worker that runs a node which ends when the gate is opened."""
    worker = processes.worker(**fields)
    task_id = await coordinator.create_task(graph=chain("gated", "work"))
    await until(lambda: bool(processes.recorded("began")))
    return task_id, worker


async def test_a_worker_that_is_stopped_finishes_its_running_nodes(
    installation: Installation, processes: Processes
) -> None:
    async with installation.coordinator() as coordinator:
        task_id, worker = await running_node(coordinator, processes, stop_grace_sec=WITHIN_SEC)
        worker.tell()
        await worker.until("signalled")
        processes.open_gate()
        assert await worker.end() == 0
        other = await processes.worker().until("worker_started")
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        ends = ends_of(await events_of(coordinator, task_id))
    assert view.status == "finished"
    assert ends == {"n0": ["finished"], "n1": ["finished"], "": ["finished"]}
    assert [(node_id, attempt, pid) for _, node_id, attempt, pid in processes.recorded()] == [
        ("n0", 1, worker.pid),
        ("n1", 1, other.pid),
    ]


async def test_a_worker_hands_back_nodes_that_do_not_end_in_time(
    installation: Installation, processes: Processes
) -> None:
    async with installation.coordinator() as coordinator:
        task_id, worker = await running_node(coordinator, processes, stop_grace_sec=0.3)
        other = await processes.worker().until("worker_started")
        began = anyio.current_time()
        worker.tell()
        assert await worker.end() == 0
        took = anyio.current_time() - began
        processes.open_gate()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        ends = ends_of(await events_of(coordinator, task_id))
    assert took < 20
    assert (view.status, view.nodes["n0"].attempt, view.nodes["n0"].result) == (
        "finished",
        1,
        other.pid,
    )
    assert ends == {"n0": ["finished"], "n1": ["finished"], "": ["finished"]}


async def test_the_example_over_two_coordinators_and_three_workers_counts_what_a_single_pass_counts(
    processes: Processes,
) -> None:
    stdlib, root, output = (
        Path(sysconfig.get_paths()["stdlib"]),
        processes.folder / "library",
        processes.folder / "report.csv",
    )
    for package in PACKAGES:
        shutil.copytree(stdlib / package, root / package)
    params = processes.folder / "params.json"
    params.write_text(json.dumps({"root": str(root), "exclude": LEFT_OUT, "output": str(output)}))
    handlers = ("--handlers", "examples.stdlib_report.handlers:HANDLERS")
    started = [processes.coordinator(worker_types="list_files,parse,aggregate") for _ in range(2)]
    started += [processes.start("worker", *handlers) for _ in range(3)]
    for process, action in zip(
        started, ["coordinator_ready"] * 2 + ["worker_started"] * 3, strict=True
    ):
        await process.until(action)
    flow = ROOT / "examples" / "stdlib_report" / "flow.yaml"
    done = await processes.run("submit", flow, "--params", f"@{params}", "--wait", "--json")
    assert done.returncode == 0, done.stderr + "".join(process.logged() for process in started)
    expected = single_pass(root, LEFT_OUT)
    result = json.loads(done.stdout)["result"]["aggregate"]
    assert result["totals"] == expected["totals"]
    assert result["totals"]["modules"] > 80
    assert [(row[0], row[1]) for row in result["tables"][0]["rows"]] == expected["largest"]
    assert output.exists()
    for process in started:
        process.tell()
    assert [await process.end() for process in started] == [0] * 5
