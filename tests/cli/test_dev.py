"""``flowkit dev``: its worker follows changes of files, and its tasks survive kills."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._embedded import LEASES
from flowkit._records.worker_sessions import sessions_of
from flowkit.cli._dev_workers import DevWorkers, Limits
from flowkit.worker import Worker
from tests.cli.conftest import Cli

PATIENCE_SEC = 90
HANDLERS = """
import time
from pathlib import Path
from flowkit.worker import handler

@handler("work")
def work(item):
    with Path("starts").open("a") as starts:
        starts.write("started\\n")
    while Path("hold").exists():
        time.sleep(0.05)
    return VALUE

@handler("broken")
def broken(item):
    raise ValueError("no luck")
"""
GRAPH = {"nodes": [{"node_id": "a", "type": "work"}]}
BROKEN = {"nodes": [{"node_id": "b", "type": "broken"}]}
SLEEPING = {"nodes": [{"node_id": "nap", "type": "sleep", "io": {"for_sec": 3600}}]}
HANGING = """
import time
time.sleep(1e6)
"""
BLOCKING = """
import time
from pathlib import Path
from flowkit.worker import handler

def compute():
    time.sleep(1e6)

@handler("work")
async def work(item):
    if not Path("reported").exists():
        compute()
    return 1
"""

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


class Dev:
    """A running ``flowkit dev``."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.output = folder / "output"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flowkit.cli", "dev", *words],
                cwd=folder,
                stdout=output,
                stderr=output,
                env={**os.environ, "NO_COLOR": "1"},
            )

    @property
    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8")

    async def until(self, text: str, times: int = 1) -> None:
        """Wait until it has printed a text this many times."""
        await eventually(lambda: self.printed.count(text) >= times, lambda: self.printed)

    async def ended(self) -> int:
        return await anyio.to_thread.run_sync(self.process.wait, PATIENCE_SEC)


async def eventually(condition: Callable[[], bool], shown: Callable[[], str]) -> None:
    with anyio.move_on_after(PATIENCE_SEC) as waiting:
        while not condition():
            await anyio.sleep(0.05)
    assert not waiting.cancelled_caught, shown()


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[Client]:
    async with Client(db=f"sqlite:///{folder / '.flowkit' / 'flowkit.db'}") as opened:
        yield opened


async def worker_pid(opened: Client) -> int:
    (session,) = [one for one in await sessions_of(opened.store) if not one.is_coordinator]
    return int(session.info["pid"])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and was not waited for still has its id.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_worker_follows_the_files_and_is_restarted_when_it_is_killed(tmp_path: Path):
    handlers = tmp_path / "handlers.py"
    handlers.write_text(f"VALUE = 1\n{HANDLERS}")
    dev = Dev(tmp_path, "handlers.py")
    try:
        await dev.until("serves work")
        async with client(tmp_path) as tasks:
            first = await tasks.create_task(graph=GRAPH)
            assert (await tasks.wait(first, PATIENCE_SEC)).result == {"a": 1}
            await dev.until(f"task      {first} finished")

            (tmp_path / "hold").touch()
            second = await tasks.create_task(graph=GRAPH)
            await eventually(lambda: starts(tmp_path) == 2, lambda: dev.printed)
            os.kill(await worker_pid(tasks), signal.SIGKILL)
            await dev.until("ended unexpectedly: killed by SIGKILL; another one starts")
            (tmp_path / "hold").unlink()
            view = await tasks.wait(second, PATIENCE_SEC)
            assert (view.result, view.nodes["a"].attempt) == ({"a": 1}, 2)
            await dev.until("serves work", 2)

            await dev.until(f"a of {second} failed: worker_lost: ")

            failed = await tasks.create_task(graph=BROKEN)
            await tasks.wait(failed, PATIENCE_SEC)
            await dev.until(f"task      {failed} failed in ")
            (line,) = (line for line in dev.printed.splitlines() if "no luck" in line)
            assert line.startswith(f"task      {failed} failed in ")
            assert line.endswith(": ValueError: no luck (handlers.py, line 17, in broken)")

            handlers.write_text("VALUE = \n")
            await dev.until("handlers.py, line 1: invalid syntax")
            await dev.until("cannot load the handlers; dev-")
            third = await tasks.create_task(graph=GRAPH)
            assert (await tasks.wait(third, PATIENCE_SEC)).result == {"a": 1}

            handlers.write_text(f"VALUE = 2\n{HANDLERS}")
            await dev.until("serves work", 3)
            fourth = await tasks.create_task(graph=GRAPH)
            assert (await tasks.wait(fourth, PATIENCE_SEC)).result == {"a": 2}

            handlers.write_text(f"VALUE = 3\n{HANDLERS}".replace('"broken"', '"renamed"'))
            await dev.until("broken has no handler any more")
            # The worker that served it may still take tasks until it has stopped.
            while any("broken" in one.roles for one in await tasks.workers()):
                await anyio.sleep(0.05)
            waiting = await tasks.create_task(graph=BROKEN)
            await dev.until(f"{waiting} waits: node b needs a handler for the role 'broken'")

            db = f"sqlite:///{tmp_path / '.flowkit' / 'flowkit.db'}"
            async with Worker(
                db=db, cfg=WorkerConfig(hb_interval_sec=0.1), handlers={"renamed": print}
            ):
                await dev.until("serves renamed as well, with the handlers that it has loaded")

            sleeping = await tasks.create_task(graph=SLEEPING)
            await tasks.pause(sleeping)
            await dev.until(f"task      {sleeping} paused")
            await tasks.cancel(sleeping, "not today")
            await dev.until(f"task      {sleeping} cancelled")
            assert dev.printed.count(f"{sleeping} cancelled") == 1
            assert f"{sleeping} cancelled in " in dev.printed
            assert "not today" in dev.printed
        dev.process.send_signal(signal.SIGINT)
        assert await dev.ended() == 0
        assert "unfinished: 1; they continue when this runs again" in dev.printed
        assert "Traceback" not in dev.printed
    finally:
        dev.process.kill()


class Supervised:
    """The workers of ``flowkit dev`` in this process, with a coordinator that is patient."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        settings = {"db": f"sqlite:///{folder / 'flowkit.db'}", "options": {"sqlite": LEASES}}
        hour = 3600.0
        self.coordinator = Coordinator(
            cfg=CoordinatorConfig(heartbeat_hard_sec=hour, lease_ttl_sec=hour, **settings)
        )
        self.lines: list[str] = []
        self.workers = DevWorkers(["handlers.py"], (), settings, self._say, limits)

    def _say(self, heading: str, text: str) -> None:
        self.lines.append(f"{heading} {text}")

    @property
    def printed(self) -> str:
        return "\n".join(self.lines)

    async def until(self, text: str, times: int = 1) -> None:
        """Wait until it has printed a text this many times."""
        await eventually(lambda: self.printed.count(text) >= times, lambda: self.printed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Coordinator]:
        async with self.coordinator as coordinator, anyio.create_task_group() as group:
            group.start_soon(self.workers.run, coordinator)
            yield coordinator
            self.workers.stop()


QUICK = Limits(report_sec=0.5, replace_sec=3.0)


async def test_a_worker_that_hangs_at_its_import_is_reported_and_replaced(folder: Path):
    handlers = folder / "handlers.py"
    handlers.write_text(f"VALUE = 1\n{HANDLERS}")
    dev = Supervised(folder, QUICK)
    async with dev.running():
        await dev.until("serves work, broken")
        handlers.write_text(HANGING)
        await dev.until(", at handlers.py, line 3; dev-")
        handlers.write_text(f"VALUE = 2\n{HANDLERS}")
        await dev.until("serves work, broken", 2)


async def test_a_worker_whose_event_loop_is_blocked_is_reported_and_replaced(folder: Path):
    (folder / "handlers.py").write_text(BLOCKING)
    dev = Supervised(folder, QUICK)
    async with dev.running() as tasks:
        await dev.until("serves work")
        retries = {"max": 100, "backoff_sec": 0.1, "multiplier": 1}
        graph = {"nodes": [{"node_id": "a", "type": "work", "retry_policy": retries}]}
        task_id = await tasks.create_task(graph=graph)
        await dev.until("its event loop is blocked by handlers.py, line 7, in compute: use await")
        (folder / "reported").touch()
        await dev.until("was killed, because it was blocked for 3 s; another one starts")
        # Without its end being declared, it would count as lost after an hour.
        view = await tasks.wait(task_id, PATIENCE_SEC)
        assert view.result == {"a": 1}
        assert view.nodes["a"].attempt >= 2


async def test_tasks_continue_after_a_kill_of_everything(folder: Path):
    (folder / "handlers.py").write_text(f"VALUE = 1\n{HANDLERS}")
    (folder / "hold").touch()
    first = Dev(folder, "handlers.py", "--db", "sqlite:///flowkit.db")
    try:
        await first.until("serves work")
        async with Client(db=f"sqlite:///{folder / 'flowkit.db'}") as tasks:
            task_id = await tasks.create_task(graph=GRAPH)
            await eventually(lambda: starts(folder) == 1, lambda: first.printed)
            worker = await worker_pid(tasks)
            first.process.kill()
            os.kill(worker, signal.SIGKILL)
    finally:
        first.process.kill()
        first.process.wait()
    (folder / "hold").unlink()
    second = Supervised(folder)
    async with second.running() as again:
        # Without its end being declared, the killed worker would count as lost after an hour.
        view = await again.wait(task_id, PATIENCE_SEC)
    assert (view.result, view.nodes["a"].attempt, starts(folder)) == ({"a": 1}, 2, 2)
    assert "was killed earlier; its nodes run again" in second.printed


async def test_the_worker_ends_when_its_parent_was_killed(tmp_path: Path):
    (tmp_path / "handlers.py").write_text(f"VALUE = 1\n{HANDLERS}")
    dev = Dev(tmp_path, "handlers.py")
    try:
        await dev.until("serves work")
        async with client(tmp_path) as tasks:
            worker = await worker_pid(tasks)
            # Ctrl-C in a terminal goes to all processes of a group: the worker has its own.
            assert os.getpgid(worker) != os.getpgid(dev.process.pid)
    finally:
        dev.process.kill()
        dev.process.wait()
    await eventually(lambda: not is_running(worker), lambda: dev.printed)


async def test_without_handlers_only_a_coordinator_and_the_page_run(tmp_path: Path):
    dev = Dev(tmp_path)
    try:
        await dev.until("worker    none, because there are no handlers")
        address = re.search(r"^page +(http://127\.0\.0\.1:\d+)$", dev.printed, re.MULTILINE)
        assert address is not None
        async with httpx.AsyncClient(base_url=address[1]) as http:
            assert (await http.get("/api/v1/me")).json() == {"name": "local", "role": "admin"}
        dev.process.send_signal(signal.SIGTERM)
        assert await dev.ended() == 0
    finally:
        dev.process.kill()
    assert (tmp_path / ".flowkit" / ".gitignore").read_text() == "*\n"


def test_a_graph_document_is_refused_because_it_has_no_handlers(cli: Cli, folder: Path):
    result = cli("dev", "flow.yaml")
    assert result.exit_code == 2
    assert "flow.yaml is a graph and has no handlers" in " ".join(result.stderr.split())
