"""The verbs for schedules."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation


def document(folder: Path, name: str = "nightly.json", **fields: Any) -> Path:
    path = folder / name
    path.write_text(
        json.dumps(
            {
                "id": "nightly",
                "graph": ONE,
                "cron": "30 2 * * *",
                "timezone": "Europe/Berlin",
                **fields,
            }
        )
    )
    return path


def test_a_schedule_is_put_listed_shown_changed_and_deleted(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    put = cli("schedule", "put", document(folder), *where)
    assert put.stdout.startswith("schedule nightly is stored; the next time is ")
    assert "30 2 * * * (Europe/Berlin)" in cli("schedule", "ls", *where).stdout
    assert "paused" in cli("schedule", "pause", "nightly", *where).stdout
    shown = json.loads(cli("schedule", "show", "nightly", *where, "--json").stdout)
    assert (shown["paused"], shown["schedule"]["graph"]) == (True, ONE)
    (task_id,) = cli("schedule", "trigger", "nightly", *where).stdout.split()
    assert task_id.startswith("nightly@")
    assert f"task {task_id}" in cli("schedule", "show", "nightly", *where).stdout
    span = ("--start", "2026-03-01T00:00:00Z", "--end", "2026-03-03T00:00:00Z", "--limit", "1")
    filled = json.loads(cli("schedule", "backfill", "nightly", *span, *where, "--json").stdout)
    assert filled["task_ids"] == ["nightly@2026-03-01T01:30:00Z", "nightly@2026-03-02T01:30:00Z"]
    assert "resumed" in cli("schedule", "resume", "nightly", *where).stdout
    assert "deleted" in cli("schedule", "rm", "nightly", *where).stdout
    assert cli("schedule", "ls", *where).stdout == "none\n"
    missing = cli("schedule", "show", "nightly", *where)
    assert missing.exit_code == 2
    assert "error: there is no schedule 'nightly'\n" in missing.stderr


def test_next_prints_the_times_in_the_zone_of_the_schedule(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    cli("schedule", "put", document(folder), *where)
    lines = cli("schedule", "next", "nightly", "--count", "400", *where).stdout.splitlines()
    assert len(lines) == 400
    endings = {line.split("T")[1] for line in lines}
    assert endings == {"02:30:00+01:00", "02:30:00+02:00", "03:00:00+02:00"}
    assert len({line.split("T")[0] for line in lines}) == 400


def test_the_graph_may_be_in_a_file_of_its_own(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    (folder / "flow.json").write_text(json.dumps(ONE))
    (folder / "s.yaml").write_text("id: s\nevery_sec: 60\n")
    put = cli("schedule", "put", folder / "s.yaml", "--graph", folder / "flow.json", *where)
    assert put.exit_code == 0, put.stderr
    both = cli("schedule", "put", document(folder), "--graph", folder / "flow.json", *where)
    assert (both.exit_code, "leave out --graph" in both.stderr) == (2, True)


def test_a_wrong_document_is_refused_with_its_name_and_its_fields(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    path = document(folder, cron="30 2 * *", overlap="maybe")
    refused = cli("schedule", "put", path, "--db", installation.address)
    assert refused.exit_code == 2
    assert str(path) in refused.stderr
    assert "cron: '30 2 * *' has 4 fields" in refused.stderr
    assert "overlap: " in refused.stderr
    (folder / "list.json").write_text("[]")
    wrong = cli("schedule", "put", folder / "list.json", "--db", installation.address)
    assert "a schedule is an object" in wrong.stderr


def test_a_key_that_is_no_text_is_refused(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    path = folder / "odd.yaml"
    path.write_text('id: s\nat: "2100-01-01T00:00:00Z"\n1: x\n')
    done = cli("schedule", "put", path, "--db", installation.address)
    assert done.exit_code == 2
    assert "odd.yaml: the key 1 is a number; keys are strings" in done.stderr
