"""Registered flows on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowkit import Client, TaskView
from tests.cli.conftest import Cli
from tests.cli.installations import FAILING, ONE, Installation

AGAIN = {
    "nodes": [
        {"node_id": "a", "type": "work", "io": {"input_inline": {"x": 2}}},
        {"node_id": "s", "type": "subflow", "io": {"flow": "etl", "version": 1}},
    ],
    "max_parallel": 2,
}


@pytest.fixture
def flows(cli: Cli, installation: Installation, folder: Path) -> Any:
    """Run a verb of flows on an installation, in a folder with graphs."""
    for name, graph in {"one": ONE, "failing": FAILING, "again": AGAIN}.items():
        (folder / f"{name}.json").write_text(json.dumps(graph))

    def run(*args: object) -> Any:
        return cli(*args, "--db", installation.address)

    return run


def read(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_flows_are_registered_listed_and_shown(flows: Any) -> None:
    assert flows("flow", "ls").stdout == "no flows\n"
    first = flows("flow", "put", "etl", "one.json", "--description", "First try")
    assert first.stdout == "etl is registered as version 1\n"
    assert read(flows("flow", "put", "etl", "one.json", "--json"))["description"] == "First try"
    stored = read(flows("flow", "put", "etl", "failing.json", "--json"))
    assert (stored["version"], stored["graph"]) == (2, FAILING)
    (listed,) = read(flows("flow", "ls", "--json"))
    assert (listed["name"], listed["version"], listed["description"]) == ("etl", 2, "")
    assert "etl" in flows("flow", "ls").stdout
    assert read(flows("flow", "show", "etl", "--version", 1, "--json"))["graph"] == ONE
    shown = flows("flow", "show", "etl", "--version", 1).stdout.splitlines()
    assert shown[:2] == ["flow: etl", "version: 1"]
    assert shown[3:] == ["description: First try", "a  work"]


def test_two_versions_are_compared(flows: Any) -> None:
    for file in ("one.json", "failing.json", "again.json"):
        flows("flow", "put", "etl", file)
    assert read(flows("flow", "diff", "etl", "--json")) == {
        "name": "etl",
        "from": 2,
        "to": 3,
        "added": ["s"],
        "removed": ["b"],
        "changed": ["a"],
        "fields": ["max_parallel"],
    }
    lines = flows("flow", "diff", "etl", "--from", 1).stdout.splitlines()
    assert lines[:2] == ["--- etl version 1", "+++ etl version 3"]
    assert '-          "x": 1' in lines
    assert '+          "x": 2' in lines
    same = flows("flow", "diff", "etl", "--from", 2, "--to", 2)
    assert same.stdout == "versions 2 and 2 have the same graph\n"


@pytest.mark.parametrize(
    "verb", [["flow", "show"], ["flow", "diff"], ["submit", "--flow"]], ids=lambda verb: verb[0]
)
def test_a_flow_that_does_not_exist_is_an_error(flows: Any, verb: list[str]) -> None:
    result = flows(*verb, "etl")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: there is no flow 'etl'"


async def _views(client: Client, *task_ids: str) -> list[TaskView]:
    return [await client.get_task(task_id) for task_id in task_ids]


def test_a_registered_flow_is_submitted_by_its_name(flows: Any, installation: Installation) -> None:
    flows("flow", "put", "etl", "one.json")
    flows("flow", "put", "etl", "failing.json")
    latest = flows("submit", "--flow", "etl").stdout.strip()
    first = flows("submit", "--flow", "etl", "--version", 1, "--params", '{"n": 1}').stdout.strip()
    views = [
        installation.do(lambda client, one=one: client.get_task(one)) for one in (latest, first)
    ]
    assert [(one.flow, one.version, one.pipeline) for one in views] == [
        ("etl", 2, "etl"),
        ("etl", 1, "etl"),
    ]
    assert views[1].params == {"n": 1}
    assert "flow: etl, version 1" in flows("show", first).stdout.splitlines()


def test_a_submitted_flow_warns_of_roles_that_no_worker_serves(flows: Any) -> None:
    flows("flow", "put", "etl", "one.json")
    result = flows("submit", "--flow", "etl", "--wait", "--timeout", "0.1")
    assert result.exit_code == 1
    assert "'a' will wait for one" in result.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "give either FILE or --flow"),
        (["one.json", "--flow", "etl"], "give either FILE or --flow"),
        (["one.json", "--version", "1"], "needs --flow"),
    ],
)
def test_a_submission_is_of_a_file_or_of_a_registered_flow(
    flows: Any, args: list[str], sentence: str
) -> None:
    result = flows("submit", *args)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_the_check_of_a_graph_names_the_flows_that_it_runs(flows: Any, cli: Cli) -> None:
    said = cli("graph", "check", "again.json").stdout.splitlines()
    assert "it runs these registered flows, which are not checked: version 1 of flow 'etl'" in said
    assert read(cli("graph", "check", "again.json", "--json"))["flows"] == [
        {"name": "etl", "version": 1}
    ]
    drawn = cli("graph", "show", "again.json").stdout
    assert "subflow of version 1 of flow 'etl'" in drawn


def test_run_serves_all_handlers_of_its_file_for_registered_flows(
    flows: Any, cli: Cli, folder: Path
) -> None:
    (folder / "calls.py").write_text(
        "from flowkit import flow, subflow\n"
        "from flowkit.worker import handler\n"
        "@handler('square')\n"
        "def square(n): return n * n\n"
        "@flow\n"
        "def leaf(n: int): return square(n)\n"
        "@flow\n"
        "def outer(n: int): return subflow('leaf', n=n)\n"
    )
    place = ("--db", f"sqlite:///{folder}/f.db")
    assert cli("run", "calls.py:leaf", "--params", '{"n": 1}', *place).exit_code == 0
    assert cli("flow", "put", "leaf", "calls.py:leaf", *place).exit_code == 0
    ran = cli("run", "calls.py:outer", "--params", '{"n": 3}', "--timeout", 20, "--json", *place)
    assert read(ran)["result"] == 9
