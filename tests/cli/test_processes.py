"""Verbs that run as processes, and the command as a whole."""

import json
import logging
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest

from flowkit._runtime.signals import signals_received
from flowkit.cli import _options as options
from flowkit.cli._log_output import DriverRateLimit, JsonLines, is_wanted
from flowkit.config import CoordinatorConfig
from tests.cli.conftest import Cli

HANDLERS = (
    "from flowkit.worker import handler\n@handler('a')\ndef a(): ...\n@handler('b')\ndef b(): ...\n"
)
FLOWKIT = [sys.executable, "-m", "flowkit.cli"]
LOOP = "uvloop" if find_spec("uvloop") else "asyncio"


def until_ready_then_stopped(
    folder: Path, ready: str, *args: str
) -> tuple[int, list[dict[str, str]]]:
    """Start a process, send SIGTERM when it is ready, and return its status and its log."""
    lines = []
    with subprocess.Popen(
        [*FLOWKIT, *args, "--log-json"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("warning: memory://"):
                continue
            lines.append(json.loads(line))
            if ready == lines[-1].get("action"):
                process.send_signal(signal.SIGTERM)
    return process.returncode, lines


def test_a_coordinator_works_until_a_signal_stops_it(folder: Path):
    status, lines = until_ready_then_stopped(
        folder, "coordinator_ready", "coordinator", "--db", "memory://", "--set", "worker_types=a,b"
    )
    assert status == 0
    assert lines[-1]["action"] == "coordinator_stopped"
    assert lines[0]["message"].startswith("FlowKit ")
    assert lines[0]["message"].endswith(
        f" coordinator: store memory://, bus memory://, namespace flowkit, event loop {LOOP}"
    )
    assert {"at", "level", "logger", "message"} < lines[0].keys()


def test_a_worker_works_until_a_signal_stops_it(folder: Path):
    (folder / "h.py").write_text(HANDLERS)
    (folder / "w.json").write_text('{"db": "memory://", "worker_id": "w1"}')
    status, lines = until_ready_then_stopped(
        folder, "worker_started", "worker", "--handlers", "h", "--roles", "a", "--config", "w.json"
    )
    assert status == 0
    assert lines[0]["message"].endswith(
        f" worker: store memory://, bus memory://, namespace flowkit, event loop {LOOP}"
    )
    assert lines[1]["message"] == "Worker w1 serves a"
    assert lines[-1]["action"] == "worker_stopped"


def test_a_service_runs_in_asyncio_where_uvloop_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / "uvloop.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    status, lines = until_ready_then_stopped(
        folder, "coordinator_ready", "coordinator", "--db", "memory://"
    )
    assert status == 0
    assert lines[0]["message"].endswith(", event loop asyncio")


IN_NATIVE_CODE_AT_EXIT = """
import atexit, ctypes
from flowkit.worker import handler

@atexit.register
def wait():
    native, semaphore = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    native.sem_init(semaphore, 0, 0)
    print("exits", flush=True)
    native.sem_wait(semaphore)

@handler("a")
def a(): ...
"""


@pytest.mark.skipif(sys.platform != "linux", reason="calls the C library of Linux")
def test_a_second_signal_ends_a_service_whose_event_loop_is_closed(folder: Path):
    (folder / "h.py").write_text(IN_NATIVE_CODE_AT_EXIT)
    command = [*FLOWKIT, "worker", "--db", "memory://", "--handlers", "h", "--log-json"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while '"worker_started"' not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "exits\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "got SIGINT again: it is ended with status 130" in said


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["worker", "--db", "memory://"], "a worker needs handlers; use --handlers module:attr"),
        (["worker", "--handlers", "h"], "no store is configured"),
        (
            ["worker", "--db", "memory://", "--handlers", "h", "--roles", "c"],
            "there is no handler for role 'c'",
        ),
        (
            ["worker", "--db", "memory://", "--handlers", "h", "--set", "max_concurrency=0"],
            "max_concurrency (from --set)",
        ),
        (
            ["coordinator", "--db", "memory://", "--set", "max_concurency=1"],
            "max_concurency (from --set): there is no such field",
        ),
        (["coordinator", "--db", "memory://", "--set", "nix"], "expected KEY=VALUE, not 'nix'"),
        (
            ["coordinator", "--db", "memory://", "--set", "options={"],
            "options: the document is not JSON",
        ),
        (
            ["coordinator", "--db", "memory://", "--set", "options.kafka.acks=1"],
            """--set takes whole fields; write --set 'options={"kafka": {"acks": 1}}'""",
        ),
    ],
)
def test_a_process_that_is_wrongly_called_does_not_start(
    cli: Cli, folder: Path, args: list[str], complaint: str
):
    (folder / "h.py").write_text(HANDLERS)
    result = cli(*args)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


def test_fields_are_set_with_their_types():
    items = [
        "worker_types=a, b",
        'options={"kafka": {"acks": 1}}',
        "max_in_flight=7",
        "namespace=x=y",
    ]
    assert options.settings(CoordinatorConfig, items, db="memory://", bus=None) == {
        "--set": {
            "worker_types": ["a", "b"],
            "options": {"kafka": {"acks": 1}},
            "max_in_flight": "7",
            "namespace": "x=y",
        },
        "--db": {"db": "memory://"},
    }


def record(name: str, level: int, *, failed: bool = False) -> logging.LogRecord:
    error = (ValueError, ValueError("x"), None) if failed else None
    return logging.LogRecord(name, level, "f.py", 1, "said %s", ("it",), error)


def test_each_logger_has_the_level_of_the_name_it_begins_with():
    levels = {"flowkit.run": logging.INFO, "flowkit": logging.ERROR, "": logging.CRITICAL}
    assert is_wanted(record("flowkit.run", logging.INFO), levels)
    assert not is_wanted(record("flowkit.worker", logging.WARNING), levels)
    assert not is_wanted(record("driver", logging.ERROR, failed=True), levels)


def test_tracebacks_of_handlers_are_always_shown():
    assert is_wanted(
        record("flowkit.worker", logging.WARNING, failed=True),
        {"flowkit": logging.ERROR, "": logging.CRITICAL},
    )


def test_a_log_line_as_json_carries_what_was_given_with_it():
    item = record("flowkit.x", logging.WARNING, failed=True)
    item.task_id = "t1"
    said = json.loads(JsonLines().format(item))
    assert (said["level"], said["logger"], said["message"], said["task_id"]) == (
        "warning",
        "flowkit.x",
        "said it",
        "t1",
    )
    assert "ValueError: x" in said["traceback"]


def test_a_long_field_of_a_log_line_as_json_is_left_out_and_the_others_are_kept():
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    item = record("flowkit.x", logging.WARNING)
    item.task_id, item.rows, item.found = "t1", ["x" * 100] * 100_000, Broken()
    line = JsonLines().format(item)
    said = json.loads(line)
    assert (said["message"], said["task_id"]) == ("said it", "t1")
    assert said["rows"] == "left out: ValueError: the value is longer than 16000 bytes"
    assert said["found"] == "left out: ValueError: no text"
    assert len(line) < 1_000


def test_without_typer_the_command_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from flowkit.cli import main; main(['ls'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the flowkit command needs typer; run: pip install 'flowkit-core[cli]'\n"


def test_the_whole_command_runs_a_flow_and_leaves_with_its_status(folder: Path):
    (folder / "f.py").write_text(
        "from flowkit import flow\nfrom flowkit.worker import handler\n@handler('a')\ndef a(item,"
        " ctx):\n    ctx.log.info('at work')\n    raise RuntimeError('boom')\n@flow\ndef f(g):\n   "
        " g.node('n', 'a', retry_policy={'max': 0})\n"
    )
    done = subprocess.run(
        [*FLOWKIT, "run", "f.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 1
    assert "INFO flowkit.run: at work" in done.stderr
    assert "line 6, in a\n    raise RuntimeError('boom')" in done.stderr
    assert "node 'n' failed: unexpected_error: RuntimeError: boom" in done.stdout


LONG = """
import sys, time
from flowkit import flow
from flowkit.worker import handler

@handler("gentle")
async def gentle(item, ctx):
    sys.stderr.write("begun\\n")
    await ctx.cancellable(ctx.clock.sleep(600))

@handler("stubborn")
def stubborn(item):
    sys.stderr.write("begun\\n")
    time.sleep(600)

@handler("blocking")
async def blocking(item):
    sys.stderr.write("begun\\n")
    time.sleep(600)

@flow
def blocked(g):
    g.node("n", "blocking")

@flow
def calm(g):
    g.node("n", "gentle")

@flow
def hard(g):
    g.node("n", "stubborn")
"""


HANGUP_IS_HEARD = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "from flowkit.cli import run_process; run_process()"
)


def interrupted(
    folder: Path, flow: str, times: int, number: signal.Signals = signal.SIGINT
) -> tuple[int, str]:
    """Run a flow and interrupt it twice; return its status and its output.

    The first interrupt follows the start of its node, the second one the notice of the first. The
    temporary folders of the process are in the folder ``temporary``.
    """
    (folder / "long.py").write_text(LONG)
    (folder / "temporary").mkdir()
    said = ""
    with subprocess.Popen(
        [sys.executable, "-c", HANGUP_IS_HEARD, "run", f"long.py:{flow}"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder / "temporary")},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if times and ("begun" in line or line.startswith("interrupted: ")):
                times -= 1
                process.send_signal(number)
    return process.returncode, said


def test_an_interrupt_cancels_what_run_runs_and_says_so(folder: Path):
    status, said = interrupted(folder, "calm", 1)
    assert status == 1
    assert "interrupted: cancelling the task; interrupt again to exit at once" in said
    assert "cancelling the task" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_processes_cancel_the_task_too(folder: Path, number: signal.Signals):
    status, said = interrupted(folder, "calm", 1, number)
    assert status == 1
    assert "interrupted: cancelling the task" in said
    assert list((folder / "temporary").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_and_removes_its_file(folder: Path, number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", HANGUP_IS_HEARD, "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.readline()
        demo.send_signal(number)
        said = demo.stderr.read()
    assert demo.returncode == 1
    assert said == "interrupted: stopping the demo; interrupt again to exit at once\n"
    assert list(folder.iterdir()) == []


def test_a_program_that_ignores_the_end_of_its_terminal_continues():
    async def main() -> list[object]:
        with signals_received(lambda number: None, patience_sec=1):
            return [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]

    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ignored, handled = anyio.run(main)
    finally:
        signal.signal(signal.SIGHUP, old)
    assert ignored is signal.SIG_IGN
    assert callable(handled)


@pytest.mark.parametrize("flow", ["hard", "blocked"])
def test_a_second_interrupt_ends_run_at_once_even_if_handlers_continue(folder: Path, flow: str):
    status, said = interrupted(folder, flow, 2)
    assert "interrupted: cancelling the task; interrupt again to exit at once" in said
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in said
    assert list((folder / "temporary").iterdir()) == []


def test_a_handler_that_ends_the_event_loop_ends_run_with_a_status_that_is_not_0(folder: Path):
    (folder / "f.py").write_text(
        "import asyncio, sys\nfrom flowkit import flow\nfrom flowkit.worker import"
        " handler\n@handler('a')\nasync def a():\n   "
        " asyncio.get_running_loop().call_soon(sys.exit, 0)\n    await"
        " asyncio.sleep(600)\n@flow\ndef f(g):\n    g.node('n', 'a')\n"
    )
    done = subprocess.run(
        [*FLOWKIT, "run", "f.py"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 1
    assert (
        "The event loop is ended by SystemExit(0) of a handler, function or plugin" in done.stderr
    )


def test_a_broken_option_shows_the_usage(cli: Cli):
    result = cli("run", "--nix")
    assert result.exit_code == 2
    assert "flowkit run" in result.stderr or "run [OPTIONS]" in result.stderr


def test_the_version_is_printed(cli: Cli):
    from flowkit import __version__

    assert cli("--version").stdout == f"flowkit {__version__}\n"


def test_a_driver_says_the_same_about_the_same_once_a_minute() -> None:
    now = 0.0
    lines = DriverRateLimit(lambda: now)

    def shown(name: str, *args: object) -> bool:
        return lines.filter(
            logging.LogRecord(name, logging.ERROR, "file", 1, "Topic %s not found", args, None)
        )

    assert [
        shown("aiokafka.cluster", "a"),
        shown("aiokafka.cluster", "a"),
        shown("aiokafka.cluster", "b"),
    ] == [True, False, True]
    assert [shown("shop.handlers", "a"), shown("shop.handlers", "a")] == [True, True]
    now = 60.0
    assert shown("aiokafka.cluster", "a")


INTERRUPTED_IMPORT = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "flowkit._backends":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.argv[0] = "flowkit"
from _flowkit_command import main
main()
"""


def test_an_interrupt_while_the_command_is_imported_ends_it_quietly():
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, "plugins"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


PRINTING = """
import os
from pathlib import Path
from flowkit import Graph
from flowkit.worker import handler

@handler("a")
def a(item):
    print("printed")
    nowhere = os.stat(os.devnull)
    Path("goes").write_text(str([os.path.samestat(os.fstat(fd), nowhere) for fd in range(3)]))

graph = Graph()
graph.node("n", "a")
"""


def test_a_flow_runs_and_texts_go_nowhere_if_the_standard_streams_are_closed(folder: Path):
    (folder / "printing.py").write_text(PRINTING)
    command = f'"{sys.executable}" -m flowkit.cli run printing.py <&- >&- 2>&-'
    result = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (folder / "goes").read_text() == "[True, True, True]"


def test_a_deleted_current_folder_is_named(tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir "{gone}" && "{sys.executable}" -m flowkit.cli plugins'
    result = subprocess.run(["sh", "-c", command], cwd=gone, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: the current folder was deleted; change to another one\n"
