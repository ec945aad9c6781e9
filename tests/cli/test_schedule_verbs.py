"""The verbs for schedules."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from flowkit import Client, Schedule
from flowkit_testing import ManualClock
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
    listed = cli("schedule", "ls", *where).stdout
    for text in ("30 2 * * * (Europe/Berlin)", "state", "active", "T02:30:00+0"):
        assert text in listed
    assert "paused" in cli("schedule", "pause", "nightly", *where).stdout
    shown = json.loads(cli("schedule", "show", "nightly", *where, "--json").stdout)
    assert (shown["paused"], shown["schedule"]["graph"]) == (True, ONE)
    (task_id,) = cli("schedule", "trigger", "nightly", *where).stdout.split()
    assert task_id.startswith("nightly@")
    at = task_id.removeprefix("nightly@").replace("Z", "+00:00")
    assert f"schedule: nightly, nominal time {at}\n" in cli("show", task_id, *where).stdout
    assert f"task {task_id}" in cli("schedule", "show", "nightly", *where).stdout
    span = ("--start", "2026-03-01T00:00:00Z", "--end", "2026-03-03T00:00:00Z", "--limit", "1")
    filled = json.loads(cli("schedule", "backfill", "nightly", *span, *where, "--json").stdout)
    assert filled["task_ids"] == ["nightly@2026-03-01T01:30:00Z", "nightly@2026-03-02T01:30:00Z"]
    assert "resumed" in cli("schedule", "resume", "nightly", *where).stdout
    assert "deleted" in cli("schedule", "rm", "nightly", *where).stdout
    assert cli("schedule", "ls", *where).stdout == "no schedules\n"
    missing = cli("schedule", "show", "nightly", *where)
    assert missing.exit_code == 2
    assert "error: there is no schedule 'nightly'\n" in missing.stderr


def test_all_fields_of_a_schedule_are_shown_with_times_in_its_zone(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    (folder / "flow.json").write_text(json.dumps(ONE))
    cli("flow", "put", "etl", folder / "flow.json", *where)
    fields = {
        "graph": None,
        "flow": "etl",
        "version": 1,
        "params": {"day": "${schedule.at}"},
        "start_at": "2026-01-01T00:00:00Z",
        "end_at": "2099-07-01T00:00:00Z",
        "jitter_sec": 60,
        "catch_up_window_sec": 3600,
        "labels": {"team": "a"},
        "priority": 3,
        "deadline_sec": 90,
        "pipeline": "reports",
        "paused": True,
    }
    put = cli("schedule", "put", document(folder, **fields), *where)
    assert put.stdout == "schedule nightly is stored, and paused\n"
    assert cli("schedule", "show", "nightly", *where).stdout.splitlines() == [
        "schedule: nightly",
        "times: 30 2 * * * (Europe/Berlin)",
        "from: 2026-01-01T01:00:00+01:00",
        "until: 2099-07-01T02:00:00+02:00",
        "jitter: up to 60 s",
        "paused: yes",
        "runs: flow etl, version 1",
        'params: {"day": "${schedule.at}"}',
        "pipeline: reports",
        "labels: team=a",
        "priority: 3",
        "deadline: 90 s",
        "overlap: skip",
        "catch up: latest, of the last 3600 s",
    ]


def test_times_of_a_backfill_without_a_zone_are_in_the_zone_of_the_schedule(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    cli("schedule", "put", document(folder, cron="0 0 * * *", paused=True), *where)
    span = ("--start", "2026-03-01", "--end", "2026-03-02T00:00")
    filled = cli("schedule", "backfill", "nightly", *span, *where)
    assert filled.stdout.split() == [
        "nightly@2026-02-28T23:00:00Z",
        "nightly@2026-03-01T23:00:00Z",
    ]
    span = ("--start", "2026-03-01T01:00", "--end", "2026-03-01T02:00")
    nothing = cli("schedule", "backfill", "nightly", *span, *where)
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "there is no nominal time in this span" in nothing.stderr
    wrong = cli("schedule", "backfill", "nightly", "--start", "soon", "--end", "2026-01-01", *where)
    assert (wrong.exit_code, "expected a time" in wrong.stderr) == (2, True)


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


def test_next_says_that_the_last_time_has_passed(cli: Cli, installation: Installation) -> None:
    async def put_a_year_ago() -> None:
        then = datetime.now(UTC) - timedelta(days=365)
        once = Schedule("nightly", graph=ONE, at=then + timedelta(days=1))
        clock = ManualClock(start=then)
        async with Client(db=installation.address, clock=clock) as client:
            await client.put_schedule(once)

    anyio.run(put_a_year_ago)
    ended = cli("schedule", "next", "nightly", "--db", installation.address)
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.splitlines()[-1] == "schedule nightly has ended: no time is left"


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
    path = document(folder, cron="30 2 * *", overlap="queued", jitters_sec=5)
    refused = cli("schedule", "put", path, "--db", installation.address)
    assert refused.exit_code == 2
    assert f"error: {path} has 3 faults\n" in refused.stderr
    assert "cron: '30 2 * *' has 4 fields" in refused.stderr
    assert "overlap must be 'skip' or " in refused.stderr
    assert "did you mean 'queue'?" in refused.stderr
    assert "unknown field 'jitters_sec'; did you mean 'jitter_sec'?" in refused.stderr
    graph = {"nodes": [{"node_id": "a", "type": "work", "depends_on": ["b"]}]}
    all_faults = cli(
        "schedule", "put", document(folder, cron="x", graph=graph), "--db", installation.address
    )
    assert f"error: {path} has 2 faults\n" in all_faults.stderr
    assert "'b'" in all_faults.stderr
    (folder / "empty.json").write_text("{}")
    empty = cli("schedule", "put", folder / "empty.json", "--db", installation.address)
    assert "  id is missing\n" in empty.stderr
    (folder / "list.json").write_text("[]")
    wrong = cli("schedule", "put", folder / "list.json", "--db", installation.address)
    assert "a schedule is an object" in wrong.stderr


def test_faults_of_a_task_are_those_of_the_schedule(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    where = ("--db", installation.address)
    path = document(folder, params={"day": "${schedule.day}"})
    refused = cli("schedule", "put", path, *where)
    assert "error: schedule 'nightly' has 1 fault\n  /params/day" in refused.stderr
    missing = cli("schedule", "put", document(folder, graph=None, flow="daily"), *where)
    assert "error: schedule 'nightly': there is no flow 'daily'\n" in missing.stderr


def test_a_key_that_is_no_text_is_refused(
    cli: Cli, installation: Installation, folder: Path
) -> None:
    path = folder / "odd.yaml"
    path.write_text('id: s\nat: "2100-01-01T00:00:00Z"\n1: x\n')
    done = cli("schedule", "put", path, "--db", installation.address)
    assert done.exit_code == 2
    assert "odd.yaml: it has the key 1, which is a number; keys are strings" in done.stderr
    path.write_text("id: s\nevery_sec: 60\nflow: f\nparams: {off: 1}\n")
    done = cli("schedule", "put", path, "--db", installation.address)
    assert done.exit_code == 2
    said = "params has the key False, which is a boolean; keys are strings (in YAML, write 'on',"
    assert said in done.stderr
