"""Run the flow on an SQLite file, and kill its worker halfway.

python -m examples.stdlib_report [PARAMS]

The coordinator, the workers and the command that shows the progress are processes of their own.
They meet in the file, which stays until the next run. If flowkit-web is installed, the last line is
the address of a page that shows the run. In a terminal the page is served at once, for some minutes
or until Ctrl-C.
"""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from examples.stdlib_report.handlers import root_of
from examples.stdlib_report.single_pass import single_pass
from flowkit import Coordinator, CoordinatorConfig

FLOW = Path(__file__).with_name("flow.yaml")
PARAMS: dict[str, Any] = {"exclude": ["test"], "top": 5}
TASK_ID = "report"
DATABASE = Path("stdlib_report.db").resolve()
PAGE = f"/tasks/{TASK_ID}?tab=timeline"
SHOW_SEC = 600.0
FLOWKIT = os.path.relpath(Path(sys.executable).with_name("flowkit"))
HEARTBEAT_SEC = 0.5
OPTIONS = {"sqlite": {"lease_sec": 2.0}}
"""A process that was killed keeps its messages until its lease is over, by default ten seconds."""


async def main(params: dict[str, Any]) -> int:
    for earlier in DATABASE.parent.glob(f"{DATABASE.name}*"):
        earlier.unlink()
    with ExitStack() as processes:
        address = f"sqlite:///{DATABASE.as_posix()}"
        # A worker counts as lost when it sent no heartbeat for two seconds, instead of twenty.
        cfg = CoordinatorConfig(
            db=address,
            heartbeat_soft_sec=2 * HEARTBEAT_SEC,
            heartbeat_hard_sec=4 * HEARTBEAT_SEC,
            lease_ttl_sec=4 * HEARTBEAT_SEC,
            options=OPTIONS,
        )
        async with Coordinator(cfg=cfg) as coordinator:
            first = start_worker(processes, address, "ada")
            await coordinator.create_task(
                graph=FLOW.read_text(encoding="utf-8"), params=params, task_id=TASK_ID
            )
            watching = start(processes, "watch", TASK_ID, "--timeline", "--db", address)

            await half_of_the_files(coordinator)
            first.kill()
            print("» worker 'ada' was killed (SIGKILL); worker 'ben' starts", flush=True)
            start_worker(processes, address, "ben")

            view = await coordinator.wait(TASK_ID)
            await asyncio.to_thread(watching.wait)
            expected = single_pass(root_of(params), params.get("exclude", ()))["totals"]
            result: Any = view.result
            totals = result["aggregate"]["totals"] if view.status == "finished" else None
            print(f"totals of the flow:       {totals}")
            print(f"totals of a single loop:  {expected}", flush=True)
            await show(coordinator, cfg)
    return 0 if totals == expected else 1


async def show(coordinator: Coordinator, cfg: CoordinatorConfig) -> None:
    """Say how to see the web page of the run. In a terminal, serve it."""
    server = coordinator.plugins.open_page(cfg)
    if server is None:
        return
    if not sys.stdout.isatty():
        print(f"» to see the run: {FLOWKIT} web --db sqlite:///{DATABASE.name}")
        print(f"  and open http://127.0.0.1:8400{PAGE}")
        return
    async with server as address:
        print(f"» the run (Ctrl-C ends this): {address}{PAGE}", flush=True)
        try:
            await asyncio.sleep(SHOW_SEC)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()


def start_worker(processes: ExitStack, address: str, name: str) -> subprocess.Popen[bytes]:
    settings = {"worker_id": name, "hb_interval_sec": HEARTBEAT_SEC, "options": json.dumps(OPTIONS)}
    fields = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
    handlers = ("--handlers", "examples.stdlib_report.handlers:HANDLERS")
    return start(processes, "worker", *handlers, *fields, "--db", address, "--log-level", "error")


def start(processes: ExitStack, *words: str) -> subprocess.Popen[bytes]:
    """Start a ``flowkit`` command, which is ended with the example."""
    process = subprocess.Popen([sys.executable, "-m", "flowkit.cli", *words])
    processes.callback(process.wait)
    processes.callback(process.terminate)
    return process


async def half_of_the_files(coordinator: Coordinator) -> None:
    """Wait until half of the files are parsed."""
    while not (view := await coordinator.get_task(TASK_ID)).status.terminal:
        if view.nodes["list_files"].status == "finished":
            parsed, listed = [await batches(coordinator, name) for name in ("parse", "list_files")]
            if 2 * parsed >= listed:
                return
        await asyncio.sleep(0.05)


async def batches(coordinator: Coordinator, node_id: str) -> int:
    return sum([artifact.partial async for artifact in coordinator.artifacts(TASK_ID, node_id)])


if __name__ == "__main__":
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    sys.exit(asyncio.run(main(PARAMS | given)))
