"""The verbs take flows in Python."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.installations import Installation

STEPS = """\
from flowkit.worker import handler

@handler("count")
def count(text: str, times: int = 1) -> int:
    return len(text) * times

@handler("report")
async def report(line: str) -> str:
    return line
"""
FLOW = """\
import steps
from flowkit import flow

slow = steps.report.options(timeouts={"start_to_close_sec": 60})

@flow
def sizes(text: str, times: int = 2):
    slow(f"{steps.count(text, times)} characters")

@flow
def faulty(text: str):
    if steps.count(text) > 3:
        slow(text)

@flow
def wrong(text: str):
    slow.options(priority="high")(text)
"""


@pytest.fixture(autouse=True)
def flows(folder: Path) -> Path:
    (folder / "steps.py").write_text(STEPS)
    (folder / "sizes.py").write_text(FLOW)
    return folder


def test_run_takes_params_and_the_handlers_that_the_flow_calls(cli: Cli):
    result = cli("run", "sizes.py:sizes", "--params", '{"text": "abc"}')
    assert result.exit_code == 0
    assert 'report: "6 characters"' in result.stdout


def test_params_that_do_not_fit_are_refused_with_all_faults(cli: Cli):
    result = cli("run", "sizes.py:sizes", "--params", '{"txt": "abc", "times": "x"}')
    assert result.exit_code == 2
    assert 'params: "text" is a required property' in result.stderr
    assert 'params.times: "x" is not of type "integer"' in result.stderr
    assert "('txt' was unexpected)" in result.stderr


def test_submit_takes_a_flow(cli: Cli, installation: Installation):
    result = cli(
        "submit",
        "sizes.py:sizes",
        "--db",
        installation.address,
        "--task-id",
        "t",
        "--params",
        '{"text": "abc"}',
    )
    assert result.stdout == "t\n"
    shown = json.loads(cli("show", "t", "--db", installation.address, "--json").stdout)
    assert shown["params"] == {"text": "abc", "times": 2}


def test_a_flow_is_checked_and_shown(cli: Cli):
    result = cli("graph", "check", "sizes.py:sizes")
    assert "sizes.py:sizes is valid: 2 nodes, 1 edge; roles: count, report" in result.stdout
    document = json.loads(cli("graph", "show", "sizes.py:sizes", "--json").stdout)
    assert [node["node_id"] for node in document["nodes"]] == ["count", "report"]


def test_a_mistake_is_shown_with_the_line_of_the_file(cli: Cli, folder: Path):
    result = cli("graph", "check", "sizes.py:faulty")
    assert result.exit_code == 2
    assert "results.count > 3 is known only while the task runs" in result.stderr
    assert f"({folder}/sizes.py, line 12)" in result.stderr
    result = cli("graph", "check", "sizes.py:wrong", "--json")
    (fault,) = json.loads(result.stdout)["faults"]
    assert fault["node_id"] == "report"
    assert fault["message"].startswith("priority must be a whole number")
    assert fault["message"].endswith(f"({folder}/sizes.py, line 17)")
