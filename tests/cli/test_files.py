"""The command line with SQLite files, usable and unusable."""

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

FLOW = """
from flowkit import flow
from flowkit.worker import handler

@handler("step")
def step(item):
    return {"step": item}

@flow
def steps(g):
    g.node("first", "step", input_inline="first")
"""


@pytest.fixture
def flows(folder: Path) -> Path:
    (folder / "steps.py").write_text(FLOW)
    return folder


def _of_a_missing_folder(path: Path) -> Path:
    return path.parent / "missing" / path.name


def _of_another_kind(path: Path) -> Path:
    path.write_text("These are no pages of a database, but words of a human. " * 20)
    return path


def _of_another_program(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    return path


def _of_a_later_version(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0x464C4F57")
        connection.execute("PRAGMA user_version = 99")
    return path


def _corrupt(path: Path) -> Path:
    _of_another_program(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)
    return path


def _a_folder(path: Path) -> Path:
    path.mkdir()
    return path


UNUSABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing folder": (_of_a_missing_folder, "does not exist; create it"),
    "no database": (_of_another_kind, "is not a SQLite database; name another file"),
    "other program": (_of_another_program, "is a database of another program; name another file"),
    "later version": (_of_a_later_version, "install that version"),
    "corrupt": (_corrupt, "restore the file from a backup"),
    "folder": (_a_folder, "is a folder; name a file in it"),
}
VERBS = {
    "run": ("run", "steps.py"),
    "dev": ("dev", "steps.py"),
    "ls": ("ls",),
    "watch": ("watch", "t1"),
    "cancel": ("cancel", "t1"),
    "coordinator": ("coordinator",),
    "worker": ("worker", "--handlers", "steps:step"),
}


CASES = [
    *((kind, "run") for kind in UNUSABLE),
    *(("later version", verb) for verb in VERBS if verb != "run"),
]


@pytest.mark.parametrize(("kind", "verb"), CASES)
def test_a_file_that_cannot_be_used_is_one_error_line_that_names_it_and_what_to_do(
    cli: Cli, flows: Path, kind: str, verb: str, caplog: pytest.LogCaptureFixture
):
    make, advice = UNUSABLE[kind]
    path = make(flows / "tasks.db")
    result = cli(*VERBS[verb], "--db", f"sqlite:///{path}")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {path}")
    assert advice in line
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


READING = {name: VERBS[name] for name in ("ls", "watch", "cancel")} | {
    "submit": ("submit", "steps.py"),
    "dlq": ("dlq", "ls"),
    "export": ("export",),
    "doctor": ("doctor",),
}


@pytest.mark.parametrize("verb", READING)
def test_a_verb_that_runs_no_tasks_does_not_create_a_file(cli: Cli, flows: Path, verb: str):
    path = flows / "mistyped.db"
    result = cli(*READING[verb], "--db", "sqlite:///mistyped.db")
    assert result.exit_code == (1 if verb == "doctor" else 2)
    assert f"{path} does not exist" in result.output
    assert not path.exists()


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("SQLITE:///tasks.db", "write sqlite:// in lower case"),
        ("MongoDB://host/name", "write mongodb:// in lower case"),
        ("tasks.db", "for a file write sqlite:///tasks.db"),
        ("/data/tasks.db", "for a file write sqlite:////data/tasks.db"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "ls"])
def test_the_error_for_an_address_that_is_spelled_wrongly_shows_the_right_one(
    cli: Cli, flows: Path, verb: str, address: str, advice: str
):
    result = cli(*VERBS[verb], "--db", address)
    assert result.exit_code == 2
    assert advice in " ".join(result.stderr.replace("│", " ").split())


# ---------------------------------------------------------------- doctor


FAULTS = {kind: advice.rpartition("; ")[2] for kind, (_, advice) in UNUSABLE.items()}


@pytest.mark.parametrize("kind", FAULTS)
def test_doctor_reports_a_file_that_cannot_be_used_once_with_its_fix(
    cli: Cli, folder: Path, kind: str
):
    path = UNUSABLE[kind][0](folder / "tasks.db")
    result = cli("doctor", "--db", f"sqlite:///{path}", "--json")
    assert result.exit_code == 1
    (fault,) = [item for item in json.loads(result.stdout)["checks"] if not item["ok"]]
    assert fault["name"] == "store"
    assert fault["detail"].startswith(str(path))
    assert fault["detail"].count("; ") == 0
    remedy = "check the path" if kind == "missing folder" else FAULTS[kind]
    assert remedy in fault["remedy"]


def test_doctor_reports_a_file_that_is_locked_without_speaking_of_a_server(cli: Cli, flows: Path):
    cli("run", "steps.py", "--db", "sqlite:///tasks.db")
    with closing(sqlite3.connect("tasks.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = cli("doctor", "--db", "sqlite:///tasks.db")
    assert result.exit_code == 1
    faults = [line for line in result.stdout.splitlines() if line.startswith("FAULT")]
    assert faults
    assert all("database is locked" in fault for fault in faults)
    assert "fix: " in result.stdout
    assert "continue or end the process" in result.stdout
    assert "server" not in result.stdout


def test_doctor_without_a_store_names_all_kinds_and_looks_for_no_server(cli: Cli):
    result = cli("doctor", "--json")
    (fault,) = [item for item in json.loads(result.stdout)["checks"] if not item["ok"]]
    assert fault["name"] == "store"
    assert "sqlite:///path" in fault["remedy"]
