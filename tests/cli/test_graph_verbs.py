import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

DIAMOND = {
    "nodes": [
        {"node_id": "a", "type": "read"},
        {"node_id": "b", "type": "clean", "depends_on": ["a"]},
        {"node_id": "c", "type": "clean", "depends_on": ["a"], "io": {"start_when": "first_batch"}},
        {"node_id": "d", "type": "write", "depends_on": ["b", "c"]},
    ]
}


@pytest.fixture
def diamond(folder: Path) -> str:
    (folder / "diamond.json").write_text(json.dumps(DIAMOND))
    return "diamond.json"


def test_a_graph_without_faults_is_well(cli: Cli, diamond: str):
    result = cli("graph", "check", diamond)
    assert result.exit_code == 0
    assert result.stdout == "diamond.json is valid: 4 nodes, 4 edges; roles: clean, read, write\n"


def test_what_users_name_is_not_read_as_markup(cli: Cli, folder: Path):
    (folder / "g[red].json").write_text('{"nodes": [{"node_id": "[bold]", "type": "[/]"}]}')
    assert (
        cli("graph", "check", "g[red].json").stdout
        == "g[red].json is valid: 1 node, 0 edges; roles: [/]\n"
    )
    assert cli("graph", "show", "g[red].json").stdout == "[bold]  [/]\n"


def test_all_faults_are_listed_with_the_file_and_their_nodes(cli: Cli, folder: Path):
    (folder / "bad.yaml").write_text(
        "nodes:\n- {node_id: a, type: t, depends_on: [nix]}\n- {node_id: b, type: t, fan_in:"
        " many}\n"
    )
    result = cli("graph", "check", "bad.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    first, *faults = result.stderr.splitlines()
    assert first == "error: bad.yaml has 2 faults"
    assert [fault.split(":")[0] for fault in faults] == ["  node 'a'", "  node 'b'"]


def test_faults_are_given_as_json(cli: Cli, folder: Path):
    (folder / "bad.json").write_text('{"nodes": [{"node_id": "a", "type": "t", "wait": 1}]}')
    result = cli("graph", "check", "bad.json", "--json")
    assert result.exit_code == 2
    said = json.loads(result.stdout)
    assert (said["file"], said["ok"]) == ("bad.json", False)
    assert [fault["node_id"] for fault in said["faults"]] == ["a"]
    assert "wait" in said["faults"][0]["message"]


def test_a_graph_without_faults_is_given_as_json(cli: Cli, diamond: str):
    said = json.loads(cli("graph", "check", diamond, "--json").stdout)
    assert said == {
        "file": "diamond.json",
        "ok": True,
        "faults": [],
        "nodes": 4,
        "roles": ["clean", "read", "write"],
        "scopes": {},
    }


def test_a_function_that_no_plugin_offers_is_a_fault(cli: Cli, folder: Path):
    (folder / "g.json").write_text(
        '{"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "vars.sett"}}]}'
    )
    result = cli("graph", "check", "g.json")
    assert result.exit_code == 2
    assert "vars.sett" in result.stderr


def test_a_graph_is_shown_as_a_tree(cli: Cli, diamond: str):
    result = cli("graph", "show", diamond)
    assert result.stdout.splitlines() == [
        "a  read",
        "├── b  clean",
        "│   └── d  write",
        "└── (first batch) c  clean",
        "    └── d ↑",
    ]


@pytest.mark.parametrize(
    ("option", "beginning"), [("--mermaid", "flowchart TD\n"), ("--dot", "digraph flow {\n")]
)
def test_a_graph_is_drawn_for_a_drawing_program(
    cli: Cli, diamond: str, option: str, beginning: str
):
    result = cli("graph", "show", diamond, option)
    assert result.exit_code == 0
    assert result.stdout.startswith(beginning)


def test_a_graph_is_shown_as_the_document_it_stands_for(cli: Cli, diamond: str):
    said = json.loads(cli("graph", "show", diamond, "--json").stdout)
    assert [node["node_id"] for node in said["nodes"]] == ["a", "b", "c", "d"]


def test_only_one_form_is_shown_at_a_time(cli: Cli, diamond: str):
    result = cli("graph", "show", diamond, "--mermaid", "--dot")
    assert result.exit_code == 2
    assert "choose one of" in result.stderr


def test_a_flow_in_a_python_file_is_shown(cli: Cli, folder: Path):
    (folder / "nightly.py").write_text(
        "from flowkit import flow\n@flow\ndef nightly(g):\n    g.node('a', 'read')\n"
    )
    assert cli("graph", "show", "nightly.py").stdout == "a  read\n"


def test_check_shows_the_names_that_the_expressions_of_each_node_can_read(
    cli: Cli, folder: Path
) -> None:
    document = {
        "nodes": [
            {"node_id": "a", "type": "work"},
            {"node_id": "b", "type": "work", "depends_on": ["a"], "when": "results.a > 1"},
            {
                "node_id": "c",
                "type": "work",
                "depends_on": ["b"],
                "io": {"input_inline": "${params.n}"},
            },
        ],
        "params": {"properties": {"n": {}, "day": {}}},
    }
    (folder / "g.json").write_text(json.dumps(document))
    lines = cli("graph", "check", "g.json").stdout.splitlines()[1:]
    task = "task (id, pipeline, labels, created_at)"
    assert lines == [
        f"expressions of b see params (day, n), vars, results (a), errors (a), {task}",
        f"expressions of c see params (day, n), vars, results (a, b), errors (a, b), {task}",
    ]
    scopes = json.loads(cli("graph", "check", "g.json", "--json").stdout)["scopes"]
    assert scopes["c"]["results"] == ["a", "b"]
    assert set(scopes) == {"b", "c"}


def test_check_names_the_defaults_that_are_not_filled_in(cli: Cli, folder: Path) -> None:
    options = {"properties": {"limit": {"default": 10}}}
    document = {"nodes": DIAMOND["nodes"], "params": {"properties": {"options": options}}}
    (folder / "g.json").write_text(json.dumps(document))
    note = (
        "the default of params.options.limit is not filled in: only top-level properties of params"
        " get their defaults"
    )
    assert cli("graph", "check", "g.json").stdout.splitlines()[1:] == [f"note: {note}"]
    assert json.loads(cli("graph", "check", "g.json", "--json").stdout)["notes"] == [note]


def test_check_shows_the_names_that_the_output_can_read(cli: Cli, folder: Path) -> None:
    document = {"nodes": DIAMOND["nodes"], "output": {"rows": "${results.d.rows}"}}
    (folder / "g.json").write_text(json.dumps(document))
    nodes, task = "a, b, c, d", "task (id, pipeline, labels, created_at)"
    assert cli("graph", "check", "g.json").stdout.splitlines()[1:] == [
        f"the output sees params, vars, results ({nodes}), errors ({nodes}), {task}"
    ]
    said = json.loads(cli("graph", "check", "g.json", "--json").stdout)
    assert said["scope_of_output"]["results"] == ["a", "b", "c", "d"]


def test_check_shows_the_names_of_the_items_of_a_map(cli: Cli, folder: Path) -> None:
    mapped = {"node_id": "m", "type": "work", "map": {"over": "${params.rows}", "as": "row"}}
    undone = {**mapped, "undo": {"type": "undo", "io": {"input_inline": "${row.id}"}}}
    (folder / "g.json").write_text(json.dumps({"nodes": [undone]}))
    scopes = json.loads(cli("graph", "check", "g.json", "--json").stdout)["scopes"]
    names = ["params", "vars", "results", "errors", "task"]
    assert [*scopes["m"]] == [*names, "index", "row"]
    assert [*scopes["m~undo"]] == [*names, "result", "index", "row"]


def test_check_shows_the_names_that_undos_and_finally_can_read(cli: Cli, folder: Path) -> None:
    undo = {"type": "undo", "io": {"input_inline": "${result.n}"}}
    document = {
        "nodes": [{"node_id": "a", "type": "work", "undo": undo}],
        "finally": [{"node_id": "f", "type": "tidy", "when": "task.status == 'failed'"}],
    }
    (folder / "g.json").write_text(json.dumps(document))
    above, task = "results (a, a~undo), errors (a, a~undo)", "id, pipeline, labels, created_at"
    assert cli("graph", "check", "g.json").stdout.splitlines() == [
        "g.json is valid: 3 nodes, 0 edges; roles: tidy, undo, work",
        f"expressions of f see params, vars, {above}, task ({task}, status, error)",
        f"expressions of a~undo see params, vars, results (a), errors (a), task ({task}), result",
    ]
