"""The commands and units of "One machine in production" work on an installation at work."""

import configparser
import shlex
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.errors import TaskNotFound
from flowkit.worker import Worker, handler
from tests.builders import graph, node
from tests.docs.commands import ON_ONE_MACHINE, commands
from tests.docs.pages import ROOT, blocks
from tests.docs.test_commands import invocation, unknown_words

PAGE = ROOT / ON_ONE_MACHINE[0]
COMMANDS = [command for command in commands() if command.runs_on_one_machine]
PATIENCE_SEC = 60

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run(folder: Path, *beginnings: str) -> str:
    """Run the commands of the page that begin so, one after the other, and return their output."""
    printed = ""
    for beginning in beginnings:
        for command in COMMANDS:
            if command.text.startswith(beginning):
                words = shlex.split(command.text)
                if words[0] in ("python", "flowkit"):
                    words = invocation(words)
                done = await anyio.run_process(words, cwd=folder, check=False)
                assert done.returncode == 0, (command.text, done.stderr.decode())
                printed += done.stdout.decode()
    return printed


async def test_a_backup_of_a_running_installation_is_restored(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'flowkit.db'}"
    config = CoordinatorConfig(
        db=db,
        heartbeat_soft_sec=1,
        heartbeat_hard_sec=2,
        lease_ttl_sec=2,
        scheduler_tick_sec=0.5,
    )
    worker_config = WorkerConfig(db=db, worker_id="worker-1", hb_interval_sec=0.2)
    going_on = anyio.Event()

    @handler("work")
    async def work(item: Any) -> int:
        return 1

    @handler("slow")
    async def slow(item: Any) -> int:
        await going_on.wait()
        return 2

    @handler("slow")
    async def quick(item: Any) -> int:
        return 3

    async with (
        Coordinator(cfg=config) as coordinator,
        Worker(cfg=worker_config, handlers=[work, slow]),
    ):
        ended = await coordinator.create_task(graph=graph(node("a"), node("b", "work", "a")))
        await coordinator.wait(ended, timeout=PATIENCE_SEC)
        runs = await coordinator.create_task(graph=graph(node("a", "slow")))
        async with anyio.create_task_group() as others:
            others.start_soon(run_tasks, coordinator)
            assert (await run(tmp_path, "python -c")).splitlines() == ["ok"]
            others.cancel_scope.cancel()
        before = await coordinator.get_task(ended)
        later = await coordinator.create_task(graph=graph(node("a")))
        going_on.set()
        await coordinator.wait(runs, timeout=PATIENCE_SEC)
        await coordinator.wait(later, timeout=PATIENCE_SEC)
    await run(tmp_path, "rm ", "cp ")
    async with (
        Coordinator(cfg=config) as coordinator,
        Worker(cfg=worker_config, handlers=[work, quick]),
    ):
        assert await coordinator.get_task(ended) == before
        with pytest.raises(TaskNotFound):
            await coordinator.get_task(later)
        view = await coordinator.wait(runs, timeout=PATIENCE_SEC)
        assert (view.status, view.result) == ("finished", {"a": 3})
        for task in (await coordinator.list_tasks(limit=10_000)).items:
            await coordinator.wait(task.id, timeout=PATIENCE_SEC)
    assert "no tasks" in await run(tmp_path, "flowkit ls")
    await run(tmp_path, "flowkit export")
    assert (tmp_path / "export.jsonl").stat().st_size


async def run_tasks(coordinator: Coordinator) -> None:
    while True:
        await coordinator.wait(await coordinator.create_task(graph=graph(node("a"))))


def test_the_units_start_verbs_that_exist() -> None:
    units = [block.code for block in blocks(PAGE) if block.code.startswith("[Unit]")]
    assert len(units) == 2
    for text in units:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read_string(text)
        program, _, arguments = unit["Service"]["ExecStart"].partition(" ")
        assert list(unknown_words(f"{Path(program).name} {arguments}")) == []


def test_the_configuration_files_of_the_page_are_valid(tmp_path: Path) -> None:
    texts = [block.code for block in blocks(PAGE) if block.language == "toml"]
    for kind, text in zip((CoordinatorConfig, WorkerConfig), texts, strict=True):
        path = tmp_path / f"{kind.__name__}.toml"
        path.write_text(text)
        assert kind.load(path).db == "sqlite:////var/lib/flowkit/flowkit.db"


def test_each_unit_waits_longer_than_its_process_needs() -> None:
    seconds = {
        kind: int(text.partition("TimeoutStopSec=")[2].split()[0])
        for kind, text in zip(
            ("coordinator", "worker"),
            [block.code for block in blocks(PAGE) if block.code.startswith("[Unit]")],
            strict=True,
        )
    }
    worker = WorkerConfig()
    assert seconds["coordinator"] > 45
    assert seconds["worker"] > worker.stop_grace_sec + worker.cancel_grace_sec + 35
