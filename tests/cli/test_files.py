"""The command line with SQLite files, usable and unusable."""

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
