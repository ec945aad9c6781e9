"""Verbs ``export`` and ``import``."""

import json
import os
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Worker, handler
from flowkit_testing import InMemoryStore
from tests.builders import graph, node
from tests.cli.conftest import Cli
from tests.cli.installations import FAILING, ONE, SKIPPING, STREAM, Installation
from tests.exports.stores import add_ended, contents, exported, opened

FLOWKIT = [sys.executable, "-W", "error", "-m", "flowkit.cli"]
PATIENCE_SEC = 60


def file_of(folder: Path, name: str) -> str:
    return f"sqlite:///{folder / name}"


def test_an_imported_task_looks_the_same(cli: Cli, installation: Installation, tmp_path: Path):
    wide = graph(node("first"), *(node(f"n{number}", "work", "first") for number in range(100)))
    tasks = [
        installation.finish(flow, pipeline="p", labels={"a": "b"})
        for flow in (ONE, FAILING, STREAM, SKIPPING, wide)
    ]
    store = file_of(tmp_path, "other.db")
    done = cli("export", "--db", installation.address, "-o", tmp_path / "export.jsonl")
    assert (done.exit_code, done.stdout) == (0, "")
    printed = [cli("artifacts", task.id, "--json", "--db", installation.address) for task in tasks]
    count = sum(len(one.stdout.splitlines()) for one in printed)
    assert count > 0
    assert f"exported 5 tasks, {count} artifacts, " in done.stderr
    assert "replaced" not in done.stderr
    done = cli("import", tmp_path / "export.jsonl", "--db", store)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"imported 5 tasks, {count} artifacts, ")
    verbs = [["ls"], ["dlq", "ls"]]
    for task in tasks:
        verbs += [["show", task.id], ["watch", task.id], ["artifacts", task.id]]
    for verb in verbs:
        shown = [cli(*verb, "--json", "--db", address) for address in (installation.address, store)]
        assert shown[0].stdout == shown[1].stdout
    timelines = [
        cli("watch", tasks[0].id, "--timeline", "--db", address)
        for address in (installation.address, store)
    ]
    assert timelines[0].stdout == timelines[1].stdout


def test_an_imported_task_is_retried_like_the_first_one(
    cli: Cli, installation: Installation, tmp_path: Path
):
    failed = installation.finish(FAILING)
    store = file_of(tmp_path, "other.db")
    cli("export", "--db", installation.address, "-o", tmp_path / "export.jsonl")
    cli("import", tmp_path / "export.jsonl", "--db", store)
    ran = []

    @handler("work")
    async def work(item: Any) -> None:
        ran.append("work")

    @handler("fail")
    async def succeed(item: Any) -> str:
        ran.append("fail")
        return "better luck"

    async def main() -> Any:
        async with (
            Coordinator(cfg=CoordinatorConfig(db=store)) as coordinator,
            Worker(cfg=WorkerConfig(db=store), handlers=[work, succeed]),
        ):
            await coordinator.retry(failed.id)
            return await coordinator.wait(failed.id, timeout=PATIENCE_SEC)

    view = anyio.run(main)
    assert (view.status, view.result, ran) == ("finished", {"b": "better luck"}, ["fail"])
    assert cli("import", tmp_path / "export.jsonl", "--db", store).exit_code == 1


def test_a_task_that_was_archived_before_its_export_is_retried(
    cli: Cli, installation: Installation, tmp_path: Path
):
    """The history and the nodes that are in the archive stay complete."""
    names = [f"n{number}" for number in range(270)]
    chain = [
        node(name, "work", *before)
        for name, before in zip(names, [[], *([name] for name in names)], strict=False)
    ]
    failed = installation.finish(graph(*chain, node("last", "fail", names[-1])))
    store = file_of(tmp_path, "other.db")
    cli("export", "--db", installation.address, "-o", tmp_path / "export.jsonl")
    lines = map(json.loads, (tmp_path / "export.jsonl").read_text().splitlines())
    archived = {line["name"][0] for line in lines if line["type"] == "archived_part"}
    assert archived == {"p", "e"}
    cli("import", tmp_path / "export.jsonl", "--db", store)

    @handler("work")
    async def work(item: Any) -> str:
        return "again"

    @handler("fail")
    async def succeed(item: Any) -> str:
        return "better luck"

    async def main() -> Any:
        async with (
            Coordinator(cfg=CoordinatorConfig(db=store)) as coordinator,
            Worker(cfg=WorkerConfig(db=store), handlers=[work, succeed]),
        ):
            await coordinator.retry(failed.id, from_nodes=["n0"])
            view = await coordinator.wait(failed.id, timeout=PATIENCE_SEC)
            return view, [event.seq async for event in coordinator.watch(failed.id)]

    view, seqs = anyio.run(main)
    assert {view.nodes[name].result for name in names} == {"again"}
    assert seqs == list(range(1, len(seqs) + 1))


def test_registered_flows_schedules_and_triggers_are_exported_with_the_tasks(
    cli: Cli, installation: Installation, tmp_path: Path
):
    (tmp_path / "flow.json").write_text(json.dumps(ONE))
    (tmp_path / "schedule.json").write_text('{"id": "s", "flow": "f", "every_sec": 3600}')
    (tmp_path / "trigger.json").write_text('{"id": "t", "flow": "f", "source": "task:p"}')
    there = ["--db", installation.address]
    assert cli("flow", "put", "f", tmp_path / "flow.json", *there).exit_code == 0
    assert cli("schedule", "put", tmp_path / "schedule.json", *there).exit_code == 0
    assert cli("trigger", "put", tmp_path / "trigger.json", *there).exit_code == 0
    done = cli("export", *there, "-o", tmp_path / "export.jsonl")
    assert done.stderr.endswith(
        "exported 0 tasks, 0 artifacts, 0 dead letters, 1 flow version, 1 schedule, 1 trigger and"
        " 0 waiting events\n"
    )
    store = file_of(tmp_path, "other.db")
    for new, skipped in ((1, 0), (0, 3)):
        done = cli("import", tmp_path / "export.jsonl", "--db", store, "--json")
        numbers = json.loads(done.stdout)
        names = ("flow_versions", "schedules", "triggers", "skipped")
        assert [numbers[name] for name in names] == [new, new, new, skipped]
    for verb in (["flow", "show", "f"], ["schedule", "show", "s"], ["trigger", "ls"]):
        shown = [cli(*verb, "--json", "--db", db).stdout for db in (installation.address, store)]
        assert shown[0] == shown[1] != ""


def test_running_tasks_are_counted_on_stderr(cli: Cli, installation: Installation):
    installation.finish(ONE)
    installation.submit(ONE, task_id="waits")
    done = cli("export", "--db", installation.address)
    assert done.exit_code == 0
    assert "left out 1 task that has not ended: 1 queued\nexported 1 task, " in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "end"
    done = cli("export", "--db", installation.address, "--task-id", "waits")
    assert done.exit_code == 1


def test_options_select_tasks(cli: Cli, installation: Installation):
    one = installation.finish(ONE, pipeline="p", labels={"a": "1"})
    installation.finish(FAILING)
    for options in (
        ["--task-id", one.id],
        ["--status", "finished"],
        ["--pipeline", "p"],
        ["--label", "a=1"],
        ["--pipeline", "p", "--created-after", "2020-01-01", "--created-before", "2999-01-01"],
    ):
        assert exported_ids(cli, installation, *options) == [one.id]
    for options in (
        ["--created-before", "2020-01-01T00:00:00Z"],
        ["--created-after", "2999-01-01"],
    ):
        assert exported_ids(cli, installation, *options) == []


def exported_ids(cli: Cli, installation: Installation, *options: str) -> list[str]:
    done = cli("export", "--db", installation.address, *options)
    lines = map(json.loads, done.stdout.splitlines())
    return [line["task_id"] for line in lines if line["type"] == "task"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--created-after", "noon"], "expected a time such as 2026-11-27 or"),
        (["export", "--task-id", "a", "--status", "failed"], "cannot be used with another"),
        (["export", "--task-id", "missing"], "error: there is no task 'missing'"),
        (["export", "-o", "missing/file"], "missing/file cannot be written: No such file"),
        (["import", "missing"], "error: missing cannot be read: No such file"),
        (["import", "."], "error: . cannot be read: Is a directory"),
        (["import", "wrong"], "error: line 1: this is not a file that flowkit export wrote"),
    ],
)
def test_wrong_arguments_are_errors(
    cli: Cli, installation: Installation, folder: Path, arguments: list[str], message: str
):
    (folder / "wrong").write_text("{}\n")
    done = cli(*arguments, "--db", installation.address)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert sorted(path.name for path in folder.iterdir()) == ["wrong"]


@pytest.mark.parametrize("file", ["missing", "wrong"])
def test_an_import_of_no_export_makes_no_store(cli: Cli, folder: Path, file: str):
    (folder / "wrong").write_text("{}\n")
    assert cli("import", file, "--db", "sqlite:///new.db").exit_code == 2
    assert sorted(path.name for path in folder.iterdir()) == ["wrong"]


def test_an_export_replaces_a_file_only_when_it_is_complete(
    cli: Cli, installation: Installation, tmp_path: Path
):
    out = tmp_path / "export.jsonl"
    out.write_text("before")
    assert cli("export", "--db", "sqlite:////missing/x.db", "-o", out).exit_code == 2
    assert out.read_text() == "before"
    done = cli("export", "--db", installation.address, "-o", out)
    assert (done.exit_code, f"; replaced {out}\n" in done.stderr) == (0, True)
    assert out.read_text() != "before"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert cli("export", "--db", installation.address, "-o", os.devnull).exit_code == 0
    assert not Path(os.devnull).is_file()


def test_an_import_that_was_killed_is_completed_by_the_next(cli: Cli, tmp_path: Path):
    source, target = InMemoryStore(), file_of(tmp_path, "target.db")

    async def fill() -> bytes:
        for number in range(300):
            await add_ended(source, f"t{number:03}", archived=1, artifacts=3)
        return await exported(source)

    async def read(address: str) -> dict[str, Any]:
        async with opened(address) as store:
            return await contents(store)

    data = anyio.run(fill)
    with subprocess.Popen([*FLOWKIT, "import", "--db", target], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) * 3 // 4])
        process.stdin.flush()
        until = time.monotonic() + PATIENCE_SEC
        while not anyio.run(read, target)["tasks"]:
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    assert 0 < len(anyio.run(read, target)["tasks"]) < 300
    (tmp_path / "export.jsonl").write_bytes(data)
    done = cli("import", tmp_path / "export.jsonl", "--db", target, "--json")
    assert json.loads(done.stdout)["refused"] == 0
    assert anyio.run(read, target) == anyio.run(contents, source)


def test_a_pipe_moves_tasks(tmp_path: Path):
    source, target = file_of(tmp_path, "source.db"), file_of(tmp_path, "target.db")

    async def fill() -> None:
        async with opened(source) as store:
            await add_ended(store, "t1", artifacts=2000)

    anyio.run(fill)
    command = shlex.join(FLOWKIT)
    piped = subprocess.run(
        f"{command} export --db {source} | {command} import --db {target}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=True,
    )
    assert piped.stdout == (
        "imported 1 task, 4,000 artifacts, 1 dead letter, 0 flow versions, 0 schedules, 0 triggers"
        " and 0 waiting events; skipped 0 already stored\n"
    )


def test_an_export_into_a_closed_pipe_is_an_error(tmp_path: Path):
    async def fill() -> None:
        async with opened(file_of(tmp_path, "source.db")) as store:
            await add_ended(store, "t1", artifacts=500)

    anyio.run(fill)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*FLOWKIT, "export", "--db", file_of(tmp_path, "source.db")],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 2
    assert done.stderr == "error: stdout was closed before the export was complete\n"
