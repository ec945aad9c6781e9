"""The verbs for triggers."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation


def document(folder: Path, **fields: Any) -> Path:
    path = folder / "after.json"
    path.write_text(json.dumps({"id": "after", "source": "task:etl", "graph": ONE, **fields}))
    return path


def test_a_trigger_is_put_listed_changed_and_deleted(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    put = cli("trigger", "put", document(folder, when="event.value.status == 'failed'"), *where)
    assert put.stdout == "trigger after is stored\n"
    assert cli("trigger", "pause", "after", *where).stdout == "trigger after is paused\n"
    listed = cli("trigger", "ls", *where).stdout
    for shown in ("after", "task:etl", "event.value.status == 'failed'", "paused"):
        assert shown in listed
    (item,) = json.loads(cli("trigger", "ls", *where, "--json").stdout)["items"]
    assert (item["paused"], item["trigger"]["graph"], item["behind"]) == (True, ONE, 0)
    resumed = json.loads(cli("trigger", "resume", "after", *where, "--json").stdout)
    assert resumed == {"trigger": "after", "resumed": True}
    assert cli("trigger", "rm", "after", *where).stdout == "trigger after is deleted\n"
    assert cli("trigger", "ls", *where).stdout == "no triggers\n"
    missing = cli("trigger", "pause", "after", *where)
    assert missing.exit_code == 2
    assert "error: there is no trigger 'after'\n" in missing.stderr


def test_a_wrong_document_is_refused_with_its_name_and_its_fields(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    path = document(folder, wen="true")
    refused = cli("trigger", "put", path, *where)
    assert refused.exit_code == 2
    assert str(path) in refused.stderr
    assert "wen" in refused.stderr
    unknown = cli("trigger", "put", document(folder, source="rabbit://host/queue"), *where)
    assert "no installed package knows the source 'rabbit://host/queue'" in unknown.stderr
    graph = {"nodes": [{"node_id": "a", "type": "work", "depends_on": ["b"]}]}
    path = document(folder, source="rabbit://host/queue", graph=graph)
    both = cli("trigger", "put", path, *where)
    assert "no installed package knows the source 'rabbit://host/queue'" in both.stderr
    assert "'b'" in both.stderr
    fields = cli("trigger", "put", document(folder, wen="true", graph=graph), *where)
    assert ("wen" in fields.stderr, "'b'" in fields.stderr) == (True, True)
    (folder / "list.json").write_text("[]")
    wrong = cli("trigger", "put", folder / "list.json", *where)
    assert "a trigger is an object with the fields id, source, graph" in wrong.stderr
