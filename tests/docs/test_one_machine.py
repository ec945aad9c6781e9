"""The commands and units of "One machine in production" work on an installation at work."""

import configparser
import shlex
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.cli._app import app
from flowkit.config import CommonConfig
from flowkit.errors import TaskNotFound
from flowkit.worker import Worker, handler
from tests.builders import graph, node
from tests.docs.commands import ON_ONE_MACHINE, commands
from tests.docs.pages import ROOT, blocks
from tests.docs.test_commands import unknown_words

PAGE = ROOT / ON_ONE_MACHINE[0]
COMMANDS = [command for command in commands() if command.runs_on_one_machine]
PATIENCE_SEC = 60

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def of_page(beginning: str) -> list[str]:
    """Return the commands of the page that begin so."""
    return [command.text for command in COMMANDS if command.text.startswith(beginning)]


async def run(folder: Path, *beginnings: str) -> str:
    """Run programs of the page, one after the other, and return their output."""
    printed = b""
    for beginning in beginnings:
        for text in of_page(beginning):
            words = shlex.split(text)
            program = sys.executable if words[0] == "python" else words[0]
            printed += (await anyio.run_process([program, *words[1:]], cwd=folder)).stdout
    return printed.decode()


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


def test_the_verbs_of_the_page_list_what_has_not_ended_and_export_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    anyio.run(create_file)
    printed = [
        CliRunner().invoke(app, shlex.split(text)[1:])
        for text in (*of_page("flowkit ls"), *of_page("flowkit export"))
    ]
    assert [(one.exit_code, one.stdout) for one in printed] == [(0, "no tasks\n"), (0, "")]
    assert (tmp_path / "export.jsonl").read_text().count("\n") == 2


async def create_file() -> None:
    async with Client(db="sqlite:///flowkit.db"):
        pass


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
    kinds: list[type[CommonConfig]] = [CoordinatorConfig, WorkerConfig]
    for kind, text in zip(kinds, texts, strict=True):
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
