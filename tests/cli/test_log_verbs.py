"""``flowkit logs`` prints what handlers logged."""

import json
from datetime import UTC, datetime
from typing import Any

from flowkit import LogLine
from flowkit.cli._log_verbs import line_texts
from tests.cli.conftest import Cli
from tests.cli.installations import FAILING, Installation

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def texts(**fields: Any) -> list[str]:
    line: dict[str, Any] = {
        "at": NOON,
        "task_id": "t1",
        "node_id": "a",
        "attempt": 1,
        "worker_id": "w",
        "level": "info",
        "logger": "flowkit.run",
        "text": "hello",
        "number": 1,
    }
    at = "2026-01-01 12:00:00.000Z "
    return [text.removeprefix(at) for text in line_texts(LogLine(**line | fields))]


def test_a_line_shows_its_level_its_node_and_its_fields():
    assert texts() == ["INFO    a: hello"]
    assert texts(level="error", attempt=2, batch_uid="b7", fields={"rows": 3}) == [
        'ERROR   a (attempt 2) batch b7: hello  {"rows": 3}'
    ]


def test_dropped_lines_are_counted_before_the_line():
    assert texts(dropped=1)[0] == "… 1 line was dropped of a …"
    assert texts(dropped=1200)[0] == "… 1,200 lines were dropped of a …"


def test_a_traceback_is_indented_and_control_characters_are_escaped():
    assert texts(text="red \x1b[31m\nnext", traceback="Traceback\n  File\x1b") == [
        "INFO    a: red \\x1b[31m\\nnext",
        "  Traceback",
        "    File\\x1b",
    ]


def test_logs_prints_the_lines_of_a_task_or_a_node(cli: Cli, installation: Installation):
    installation.finish(FAILING, task_id="t1")
    at = ("--db", installation.address)
    first, *traceback = cli("logs", "t1", "--follow", *at).stdout.splitlines()
    assert first.endswith("ERROR   b: the attempt failed: bad_input: ValueError: bad luck")
    assert traceback[-1] == "  ValueError: bad luck"
    (line,) = cli("logs", "t1", "b", "--json", *at).stdout.splitlines()
    assert json.loads(line)["node_id"] == "b"
    assert cli("logs", "t1", "a", *at).stdout == ""


def test_logs_of_a_task_or_a_node_that_does_not_exist_is_a_usage_error(
    cli: Cli, installation: Installation
):
    installation.finish(FAILING, task_id="t1")
    at = ("--db", installation.address)
    assert cli("logs", "nix", *at).exit_code == 2
    refused = cli("logs", "t1", "nix", *at)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "task 't1' has no node 'nix'" in refused.stderr
