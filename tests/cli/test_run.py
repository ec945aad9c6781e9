import json
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import pytest

from flowkit import Client
from flowkit._records.worker_sessions import WorkerSession
from tests.cli.conftest import Cli
from tests.store_records import put_session

FLOW = """
import anyio
from flowkit import flow
from flowkit.worker import handler

@handler("count")
async def count(item, ctx):
    for done in range(3):
        await ctx.heartbeat({"done": done + 1, "total": 3})
    return {"n": len(item["words"]) * ctx.params.get("times", 1)}

@handler("report")
async def report(item, ctx):
    n = ctx.results["count"]["n"]
    rows = [["words [all]", n], ["lines", 12345]]
    table = {"title": "Totals", "columns": ["what", "number"], "rows": rows}
    return {"tables": [table], "checked": True}

@handler("fail")
async def fail(item, ctx):
    raise ValueError("bad [luck]")

@handler("hang")
async def hang(item, ctx):
    await ctx.cancellable(anyio.sleep(3600))

@handler("picky")
async def picky(items):
    if 2 in items:
        raise ValueError("not 2")
    return {"items": items}

@flow
def skipping(g):
    g.node("p", "picky", input_inline=[1, 2, 3], batching={"size": 1}, on_batch_failure="skip")

@flow
def words(g):
    g.node("report", "report", after=[g.node("count", "count", input_inline={"words": ["a", "b"]})])

@flow
def failing(g):
    g.node("f", "fail")

@flow(output={"n": "${results.count.n}", "report": "${results.report}"})
def summed(g):
    g.node("report", "report", after=[g.node("count", "count", input_inline={"words": ["a", "b"]})])

@flow(output="${results.count.n * 2}")
def doubled(g):
    g.node("count", "count", input_inline={"words": ["a", "b"]})

@flow(output="${results.count.m}")
def wrong_output(g):
    g.node("count", "count", input_inline={"words": ["a", "b"]})

@flow
def optional(g):
    g.node("f", "fail", optional=True)

@flow
def hanging(g):
    g.node("h", "hang")
"""


@pytest.fixture
def flows(folder: Path) -> Path:
    (folder / "flows.py").write_text(FLOW)
    return folder


def test_a_flow_runs_here_and_its_result_is_printed(cli: Cli, flows: Path):
    result = cli("run", "flows.py:words")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("task ")
    assert "finished: 2 nodes in" in lines[0]
    assert lines[1] == 'report: {"checked": true}'
    # The most important lines are printed last.
    assert lines[2].strip() == "Totals"
    assert "│ words [all] │      2 │" in lines
    assert "│ lines       │ 12,345 │" in lines


def test_the_output_of_a_flow_is_printed(cli: Cli, flows: Path):
    lines = cli("run", "flows.py:summed").stdout.splitlines()
    assert lines[1:3] == ["n: 2", 'report: {"checked": true}']
    assert lines[3].strip() == "Totals"
    assert cli("run", "flows.py:doubled").stdout.splitlines()[1:] == ["result: 4"]
    assert json.loads(cli("run", "flows.py:doubled", "--json").stdout)["result"] == 4


def test_an_output_without_a_value_gives_status_1_and_says_why(cli: Cli, flows: Path):
    result = cli("run", "flows.py:wrong_output")
    assert result.exit_code == 1
    assert "failed: 1 node" in result.stdout
    assert "output failed: bad_expression: /output: 'results.count.m' cannot be" in result.stdout


def test_its_progress_goes_to_stderr_event_by_event(cli: Cli, flows: Path):
    lines = [line.split(maxsplit=2)[2] for line in cli("run", "flows.py:words").stderr.splitlines()]
    assert lines[0] == "task  queued"
    assert lines[-1] == "task  finished"
    assert "count  running  attempt 1 on local" in lines
    assert "count  progress 3/3" in lines
    assert any(re.fullmatch(r"report  finished  \d+\.\d\d s", line) for line in lines)


def test_the_task_is_printed_as_one_json_document(cli: Cli, flows: Path):
    result = cli("run", "flows.py:words", "--json", "--params", '{"times": 3}')
    said = json.loads(result.stdout)
    assert (said["status"], said["params"]) == ("finished", {"times": 3})
    assert said["nodes"]["count"]["result"] == {"n": 6}
    assert result.stderr == ""


def test_params_are_read_from_a_file(cli: Cli, flows: Path):
    (flows / "p.json").write_text('{"times": 5}')
    assert json.loads(cli("run", "flows.py:words", "--json", "--params", "@p.json").stdout)[
        "nodes"
    ]["count"]["result"] == {"n": 10}


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ("[1", "is not JSON"),
        ("[1]", "--params: expected an object, not a list"),
        ("@nix.json", "nix.json: No such file"),
    ],
)
def test_wrong_params_are_a_usage_error(cli: Cli, flows: Path, params: str, complaint: str):
    result = cli("run", "flows.py:words", "--params", params)
    assert result.exit_code == 2
    assert "--params" in result.stderr
    assert complaint in result.stderr


def test_a_task_that_fails_gives_status_1_and_says_why(cli: Cli, flows: Path):
    result = cli("run", "flows.py:failing")
    assert result.exit_code == 1
    assert "failed: 1 node" in result.stdout
    assert "node 'f' failed: bad_input: ValueError: bad [luck]" in result.stdout


def test_the_failure_of_an_optional_node_is_shown_and_gives_status_0(cli: Cli, flows: Path):
    result = cli("run", "flows.py:optional")
    assert result.exit_code == 0
    assert "optional node 'f': bad_input: ValueError: bad [luck]" in result.stdout


def test_skipped_batches_are_shown_while_a_flow_runs_and_at_its_end(cli: Cli, flows: Path):
    result = cli("run", "flows.py:skipping")
    assert result.exit_code == 0
    assert (
        "node 'p': 1 failed batch skipped\n" in result.stdout
    )  # the dead letters are lost with the store of this process
    (line,) = [line for line in result.stderr.splitlines() if "  p  finished" in line]
    assert line.endswith("1 failed batch skipped")


def test_a_task_that_takes_too_long_is_cancelled(cli: Cli, flows: Path):
    result = cli("run", "flows.py:hanging", "--timeout", "0.3")
    assert result.exit_code == 1
    assert "has not ended after 0.3 s; unfinished nodes: h" in result.stderr
    assert "cancelled: 1 node" in result.stdout


def test_a_document_runs_with_handlers_given_by_name(cli: Cli, flows: Path):
    (flows / "g.yaml").write_text(
        "nodes:\n- {node_id: a, type: count, io: {input_inline: {words: [x]}}}\n"
    )
    assert 'a: {"n": 1}' in cli("run", "g.yaml", "--handlers", "flows:count").stdout


def test_a_document_without_handlers_is_refused_before_it_runs(cli: Cli, flows: Path):
    (flows / "g.yaml").write_text("nodes:\n- {node_id: a, type: count}\n")
    result = cli("run", "g.yaml")
    assert result.exit_code == 2
    assert (
        result.stderr
        == "error: no handler for role 'count' (node 'a'); use --handlers module:attr\n"
    )


def test_a_graph_with_faults_is_refused(cli: Cli, flows: Path):
    (flows / "g.json").write_text(
        '{"nodes": [{"node_id": "a", "type": "count", "depends_on": ["a"]}]}'
    )
    result = cli("run", "g.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: g.json has 1 fault\n  node 'a': ")


def test_a_flow_of_coordinator_functions_needs_no_worker(cli: Cli, flows: Path):
    (flows / "g.json").write_text(
        '{"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}}]}'
    )
    assert cli("run", "g.json").exit_code == 0


# ---------------------------------------------------------------- the file of the tasks


RECORDING = """
import os
from pathlib import Path
from flowkit import flow
from flowkit.worker import handler

@handler("step")
def step(item, ctx):
    with Path("record").open("a") as record:
        record.write(f"{item} {ctx.attempt}\\n")
    if item == "second" and Path("crash").exists():
        Path("crash").unlink()
        os.kill(os.getpid(), 9)
    return {"step": item}

@flow
def steps(g):
    first = g.node("first", "step", input_inline="first")
    g.node("second", "step", after=[first], input_inline="second")
"""


def test_the_file_of_a_run_is_removed_at_its_end(
    cli: Cli, flows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert cli("run", "flows.py:words").exit_code == 0
    assert list(elsewhere.iterdir()) == []


def test_a_run_keeps_its_task_in_the_file_that_is_asked_for(cli: Cli, flows: Path):
    arguments = ("run", "flows.py:skipping", "--db", "sqlite:///tasks.db", "--task-id", "t1")
    result = cli(*arguments)
    assert result.exit_code == 0
    assert "; see flowkit dlq ls --task t1 --db sqlite:///tasks.db\n" in result.stdout
    assert cli("dlq", "ls", "--task", "t1", "--db", "sqlite:///tasks.db").exit_code == 0
    shown = json.loads(cli("show", "t1", "--db", "sqlite:///tasks.db", "--json").stdout)
    assert shown["status"] == "finished"


def test_a_task_that_has_ended_is_not_run_again(cli: Cli, folder: Path):
    (folder / "steps.py").write_text(RECORDING)
    arguments = ("run", "steps.py", "--db", "sqlite:///tasks.db", "--task-id", "t1", "--json")
    assert json.loads(cli(*arguments).stdout) == json.loads(cli(*arguments).stdout)
    assert (folder / "record").read_text() == "first 1\nsecond 1\n"


def test_a_run_that_was_killed_is_continued_by_the_same_command(folder: Path):
    (folder / "steps.py").write_text(RECORDING)
    (folder / "crash").touch()
    command = [sys.executable, "-m", "flowkit.cli", "run", "steps.py", "--json"]
    command += ["--db", "sqlite:///tasks.db", "--task-id", "t1"]
    killed = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    command.remove("--json")
    continued = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True)
    assert continued.returncode == 0, continued.stderr
    assert continued.stdout.endswith('second: {"step": "second"}\n')
    assert re.match(r"process \d+ on \S+ ran task t1; waiting up to 2 s", continued.stderr)
    assert (folder / "record").read_text() == "first 1\nsecond 1\nsecond 2\n"


WAITING = """
from pathlib import Path
import anyio
from flowkit import flow
from flowkit.worker import handler

@handler("step")
async def step(item, ctx):
    Path("started").touch()
    while not Path("go").exists():
        await ctx.cancellable(anyio.sleep(0.05))
    return {"attempt": ctx.attempt}

@flow
def waiting(g):
    g.node("only", "step")
"""


@pytest.fixture
def waiting(folder: Path) -> list[str]:
    """The command of a run whose task ends when the file ``go`` exists."""
    (folder / "waiting.py").write_text(WAITING)
    return ["run", "waiting.py", "--db", "sqlite:///tasks.db", "--task-id", "t1"]


def test_a_second_command_for_a_task_that_runs_says_so_and_how_to_follow_or_cancel_it(
    cli: Cli, folder: Path, waiting: list[str]
):
    with subprocess.Popen([sys.executable, "-m", "flowkit.cli", *waiting], cwd=folder) as first:
        while not (folder / "started").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = cli(*waiting)
        (folder / "go").touch()
    assert first.returncode == 0
    assert second.exit_code == 2
    *_, line = second.stderr.splitlines()
    assert line.startswith(f"error: task 't1' is run by process {first.pid} on ")
    assert "flowkit watch t1 --db sqlite:///tasks.db" in line
    assert "flowkit cancel t1 --db sqlite:///tasks.db" in line
    assert "worker_id" not in second.stderr


LARGE = """
from flowkit import flow
from flowkit.worker import handler

@handler("step")
async def step(item):
    return "x" * 900_000

@flow
def large(g):
    g.node("only", "step")
"""


def test_a_file_that_cannot_be_changed_is_named_while_the_run_waits(folder: Path):
    (folder / "large.py").write_text(LARGE)
    command = [sys.executable, "-m", "flowkit.cli", "run", "large.py", "--db", "sqlite:///a.db"]
    limit = 1_000_000  # bytes of each file, as on a disk that is full
    with subprocess.Popen(
        command,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ) as run:
        assert run.stderr is not None
        line = next(line for line in run.stderr if "WARNING" in line)
        assert run.poll() is None
        run.kill()
    assert f"{folder / 'a.db'}: disk I/O error" in line
    assert "ulimit -f" in line


def test_a_run_is_refused_while_another_process_serves_its_role_in_the_file(
    cli: Cli, folder: Path, waiting: list[str]
):
    other = WAITING.replace('"step"', '"other"').replace("while not", "if not")
    (folder / "other.py").write_text(other)
    with subprocess.Popen([sys.executable, "-m", "flowkit.cli", *waiting], cwd=folder) as first:
        while not (folder / "started").exists():
            assert first.poll() is None
            time.sleep(0.05)
        refused = cli("run", "waiting.py", "--db", "sqlite:///tasks.db")
        accepted = cli("run", "other.py", "--db", "sqlite:///tasks.db")
        (folder / "go").touch()
    assert first.returncode == 0
    assert (refused.exit_code, accepted.exit_code) == (2, 0)
    *_, line = refused.stderr.splitlines()
    assert line.startswith(f"error: worker local-t1 (process {first.pid} on ")
    assert "serves the role 'step' in this file" in line


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_sessions_of_killed_workers_do_not_keep_a_flow_from_running(
    cli: Cli, folder: Path, host: str
):
    (folder / "steps.py").write_text(RECORDING)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    info = {"host": host, "pid": str(ended.pid), "hb_interval_sec": "0.01"}

    async def leave_session() -> None:
        async with Client(db="sqlite:///tasks.db") as client:
            await put_session(client.store, WorkerSession("killed", ("step",), 1, 0.0, info))

    anyio.run(leave_session)
    assert cli("run", "steps.py", "--db", "sqlite:///tasks.db").exit_code == 0


def test_a_cancelled_task_is_shown_with_the_commands_that_run_the_rest_of_it(
    cli: Cli, folder: Path, waiting: list[str]
):
    hint = (
        "to run the rest of the task: flowkit retry t1 --db sqlite:///tasks.db, and then this"
        " command again"
    )
    cancelled = cli(*waiting, "--timeout", "0.3")
    assert cancelled.exit_code == 1
    assert hint in cancelled.stderr.splitlines()
    shown = cli(*waiting)
    assert shown.exit_code == 1
    assert shown.stderr.startswith("task t1 has already ended; nothing is run\n")
    assert hint in shown.stderr.splitlines()
    (folder / "go").touch()
    assert cli("retry", "t1", "--db", "sqlite:///tasks.db").exit_code == 0
    finished = cli(*waiting)
    assert (finished.exit_code, finished.stdout.splitlines()[-1]) == (0, 'only: {"attempt": 2}')


def test_a_run_in_memory_needs_no_file(cli: Cli, flows: Path, tmp_path: Path):
    assert cli("run", "flows.py:words", "--db", "memory://").exit_code == 0
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--db", "mongodb://host/name"), "use flowkit submit"),
        (("--task-id", "t1"), "needs --db"),
        (("--timeline", "--json"), "cannot be used with --json"),
    ],
)
def test_options_that_do_not_fit_together_are_a_usage_error(
    cli: Cli, flows: Path, arguments: tuple[str, ...], complaint: str
):
    result = cli("run", "flows.py:words", *arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("worker", "--metrics-port", "0"), "'--metrics-port': must be at least 1"),
        (("ls", "--limit", "many"), "'--limit': must be a whole number"),
        (("schedule", "next", "s", "--count", "2000"), "'--count': must be at most 1000"),
    ],
)
def test_an_option_that_is_out_of_its_range_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...], complaint: str
):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert f"Invalid value for {complaint} " in " ".join(result.stderr.split())


def test_a_timeline_is_drawn_at_the_end(cli: Cli, flows: Path):
    lines = cli("run", "flows.py:words", "--timeline").stdout.splitlines()
    bars = [line.split()[:2] for line in lines if "█" in line]
    assert bars == [["count", "local"], ["report", "local"]]


def test_where_nothing_opens_memory_addresses_it_is_said_what_to_install():
    from flowkit.config import CommonConfig
    from flowkit.errors import ConfigError
    from flowkit.plugins import Plugins

    with pytest.raises(ConfigError, match="pip install flowkit-testing"):
        Plugins(discover=False).open_store("memory://run-1", CommonConfig())
