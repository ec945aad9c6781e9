import json
import shlex
from functools import partial
from pathlib import Path

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig
from flowkit._records.worker_sessions import WorkerSession
from flowkit.cli._loader import load_flow
from flowkit.cli._run_verbs import warn_of_unserved_roles
from flowkit.client._bulk import TASKS_AT_ONCE
from flowkit.plugins import Plugins
from flowkit.task import CLAIM_KINDS
from tests.builders import graph, node
from tests.cli.conftest import Cli
from tests.cli.installations import FAILING, ONE, SKIPPING, STREAM, Installation
from tests.store_records import put_session, task


def as_json(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_submit_prints_the_id_of_a_stored_task(cli: Cli, installation: Installation, folder: Path):
    (folder / "g.json").write_text(json.dumps(ONE))
    result = cli(
        "submit",
        "g.json",
        "--db",
        installation.address,
        "--params",
        '{"k": 1}',
        "--pipeline",
        "p",
        "--label",
        "team=a",
        "--label",
        "x=1=2",
    )
    assert result.exit_code == 0
    view = installation.do(lambda client: client.get_task(result.stdout.strip()))
    assert (view.status, view.params, view.pipeline, view.labels) == (
        "queued",
        {"k": 1},
        "p",
        {"team": "a", "x": "1=2"},
    )


def test_submitting_again_with_the_same_key_gives_the_same_id(
    cli: Cli, installation: Installation, folder: Path
):
    (folder / "g.json").write_text(json.dumps(ONE))
    args = (
        "submit",
        "g.json",
        "--db",
        installation.address,
        "--idempotency-key",
        "monday",
        "--json",
    )
    assert as_json(cli(*args)) == as_json(cli(*args))


def test_submit_wait_says_that_a_task_is_still_open(
    cli: Cli, installation: Installation, folder: Path
):
    (folder / "g.json").write_text(json.dumps(ONE))
    result = cli("submit", "g.json", "--db", installation.address, "--wait", "--timeout", "0.1")
    assert result.exit_code == 1
    assert "has not ended after 0.1 s; unfinished nodes: a" in result.stderr


def test_submit_wait_warns_of_roles_that_no_live_worker_serves(
    cli: Cli, installation: Installation, folder: Path
):
    (folder / "g.json").write_text(json.dumps(FAILING))
    result = cli("submit", "g.json", "--db", installation.address, "--wait", "--timeout", "0.3")
    warnings = [line for line in result.stderr.splitlines() if "no live worker" in line]
    assert warnings == [
        "warning: no live worker serves the role 'fail'; 'b' will wait for one",
        "warning: no live worker serves the role 'work'; 'a' will wait for one",
    ]


def test_submit_wait_names_the_workers_of_a_role_that_send_no_heartbeat(
    installation: Installation, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "g.json").write_text(json.dumps(ONE))
    flow = load_flow("g.json", Plugins())
    session = WorkerSession(
        "w", ("work",), beat=1, started_at=0.0, info={"hb_interval_sec": "0.01"}
    )

    async def warn(client: Client) -> None:
        await put_session(client.store, session)
        await warn_of_unserved_roles(client, flow)

    installation.do(warn)
    assert capsys.readouterr().err == (
        "warning: no heartbeat of w, which serves the role 'work': a handler blocks the event loop,"
        " or the process has ended; 'a' will wait for it or another worker\n"
    )


def test_submit_wait_of_a_task_that_ended_gives_its_result(
    cli: Cli, installation: Installation, folder: Path
):
    (folder / "g.json").write_text(json.dumps(ONE))
    installation.finish(ONE, idempotency_key="k")
    result = cli(
        "submit",
        "g.json",
        "--db",
        installation.address,
        "--idempotency-key",
        "k",
        "--wait",
        "--json",
    )
    assert as_json(result)["result"] == {"a": {"got": {"x": 1}}}


@pytest.mark.parametrize("label", ["nix", "=1"])
def test_a_label_has_a_name_and_a_value(
    cli: Cli, installation: Installation, folder: Path, label: str
):
    (folder / "g.json").write_text(json.dumps(ONE))
    result = cli("submit", "g.json", "--db", installation.address, "--label", label)
    assert result.exit_code == 2
    assert f"expected KEY=VALUE, not '{label}'" in result.stderr


def test_ls_lists_tasks_newest_first_page_by_page(cli: Cli, installation: Installation):
    ids = [installation.submit(ONE, task_id=name) for name in ("t1", "t2", "t3")]
    first = as_json(cli("ls", "--db", installation.address, "--limit", 2, "--json"))
    assert [item["id"] for item in first["items"]] == [ids[2], ids[1]]
    second = as_json(
        cli("ls", "--db", installation.address, "--limit", 2, "--after", first["next"], "--json")
    )
    assert [item["id"] for item in second["items"]] == [ids[0]]
    assert second["next"] is None


def test_the_command_for_the_next_page_is_quoted_for_the_shell(
    cli: Cli, installation: Installation
):
    for name in ("a b", "$HOME", "it's"):
        installation.submit(ONE, task_id=name)
    page = ("ls", "--db", installation.address, "--limit", 1)
    [hint] = [line for line in cli(*page).stdout.splitlines() if "--after" in line]
    option, after = shlex.split(hint)[-2:]
    first = as_json(cli(*page, "--json"))
    assert (option, after) == ("--after", first["next"])
    second = as_json(cli(*page, option, after, "--json"))
    assert [one["items"][0]["id"] for one in (first, second)] == ["it's", "$HOME"]


def test_ls_shows_a_table(cli: Cli, installation: Installation):
    installation.submit(ONE, task_id="t1", pipeline="nightly", labels={"team": "a"})
    out = cli("ls", "--db", installation.address).stdout
    for text in ("t1", "nightly", "queued", "team=a"):
        assert text in out


def test_ls_filters(cli: Cli, installation: Installation):
    installation.finish(ONE, task_id="t1", pipeline="p", labels={"team": "a"})
    installation.submit(ONE, task_id="t2", pipeline="q")

    def listed(*args: str) -> list[str]:
        return [
            item["id"]
            for item in as_json(cli("ls", "--db", installation.address, "--json", *args))["items"]
        ]

    assert listed("--status", "queued") == ["t2"]
    assert listed("--status", "queued", "--status", "finished") == ["t2", "t1"]
    assert listed("--pipeline", "p") == ["t1"]
    assert listed("--label", "team=a") == ["t1"]
    assert cli("ls", "--db", installation.address, "--status", "nix").exit_code == 2


def test_ls_filters_by_what_nodes_do(cli: Cli, installation: Installation):
    flow = {"nodes": [{"node_id": "s", "type": "subflow", "io": {"graph": ONE}}]}
    child = installation.finish(flow, task_id="parent").nodes["s"].child_task_id
    fails = {"node_id": "b", "type": "fail"}
    installation.finish({"nodes": [{**fails, "retry_policy": {"max": 0}}]}, task_id="bad")
    installation.submit(ASKING, task_id="asks")
    installation.submit(ONE, task_id="queued")
    retries = {"max": 1, "backoff_sec": 3600, "max_backoff_sec": 3600, "permanent_on": []}
    installation.defer({"nodes": [{**fails, "retry_policy": retries}]}, task_id="again")

    def listed(*args: str) -> list[str]:
        return [
            item["id"]
            for item in as_json(cli("ls", "--db", installation.address, "--json", *args))["items"]
        ]

    assert listed("--parent", "parent") == [child]
    assert listed("--root") == ["again", "queued", "asks", "bad", "parent"]
    shown = cli("ls", "--db", installation.address, "--parent", "parent").stdout
    assert "│ parent " in shown
    assert str(child) in shown
    assert listed("--waiting", "approval") == ["asks"]
    assert listed("--waiting", "approval", "--status", "queued") == []
    assert listed("--retrying") == ["again"]
    assert listed("--reason-code", "bad_input") == ["again", "bad"]
    assert listed("--reason-code", "bad_input", "--status", "failed") == ["bad"]
    views = {name: installation.do(lambda c, n=name: c.get_task(n)) for name in ("bad", "queued")}
    times = [
        *("--created-after", views["bad"].created_at.isoformat()),
        *("--created-before", views["queued"].created_at.isoformat()),
    ]
    assert listed(*times) == ["asks"]
    assert listed(*times, "--waiting", "timer") == []
    for wrong in (
        ("--waiting", "lunch"),
        ("--created-after", "yesterday"),
        ("--label", "=x"),
        ("--label", "a=1", "--label", "a=2"),
    ):
        assert cli("ls", "--db", installation.address, *wrong).exit_code == 2


def test_ls_shows_tasks_that_wait_for_a_worker(cli: Cli, installation: Installation):
    installation.finish(ONE, task_id="done")
    installation.submit(ONE, task_id="queued")
    out = cli("ls", "--db", installation.address, "--waiting", "worker").stdout
    assert "queued" in out
    assert "done" not in out


def test_ls_of_nothing_says_so(cli: Cli, installation: Installation):
    assert cli("ls", "--db", installation.address).stdout == "no tasks\n"


def test_show_shows_the_nodes_and_what_went_wrong(cli: Cli, installation: Installation):
    installation.finish(FAILING, task_id="t1", params={"k": 1})
    result = cli("show", "t1", "--db", installation.address)
    assert result.exit_code == 0
    assert 'params: {"k": 1}' in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("│ b "))
    assert "failed" in row
    assert "ValueError: bad luck" in row


def test_skipped_batches_are_in_every_view_with_the_way_to_their_letters(
    cli: Cli, installation: Installation, folder: Path
):
    (folder / "skipping.json").write_text(json.dumps(SKIPPING))
    installation.finish(SKIPPING, task_id="t 1")
    hint = "node 'a': 1 failed batch skipped; see flowkit dlq ls --task 't 1'"
    shown = cli("show", "t 1", "--db", installation.address).stdout
    assert hint in shown
    assert "1 failed batch skipped" in next(
        line for line in shown.splitlines() if line.startswith("│ a ")
    )
    watched = cli("watch", "t 1", "--db", installation.address).stdout
    assert hint in watched
    assert "  a  finished" in watched
    assert "1 failed batch skipped" in next(
        line for line in watched.splitlines() if "  a  finished" in line
    )
    waited = cli(
        "submit", "skipping.json", "--task-id", "t 1", "--wait", "--db", installation.address
    )
    assert hint in waited.stdout
    explained = cli("explain", "t 1", "a", "--db", installation.address).stdout
    assert (
        explained == "'a' has finished without 1 failed batch: see `flowkit dlq ls --task 't 1'`.\n"
    )
    assert cli("dlq", "ls", "--task", "t 1", "--db", installation.address).exit_code == 0


def test_why_a_task_was_cancelled_is_shown_with_its_nodes(cli: Cli, installation: Installation):
    installation.submit(FAILING, task_id="t1")
    assert (
        cli("cancel", "t1", "--reason", "wrong month", "--db", installation.address).exit_code == 0
    )
    shown = cli("show", "t1", "--db", installation.address).stdout
    assert shown.splitlines()[-1] == "wrong month"
    rows = [line for line in shown.splitlines() if line.startswith(("│ a ", "│ b "))]
    assert ["cancelled: wrong month" in row for row in rows] == [True, True]
    watched = cli("watch", "t1", "--db", installation.address).stdout
    assert "task  cancelled  wrong month" in watched
    assert (
        cli("explain", "t1", "b", "--db", installation.address).stdout
        == "'b' was cancelled: the task was cancelled, 'wrong month'.\n"
    )


def test_show_gives_the_task_as_json(cli: Cli, installation: Installation):
    installation.finish(FAILING, task_id="t1")
    said = as_json(cli("show", "t1", "--db", installation.address, "--json"))
    assert (said["status"], said["nodes"]["b"]["reason_code"]) == ("failed", "bad_input")


@pytest.mark.parametrize(
    "args",
    [
        ("show", "nix"),
        ("watch", "nix"),
        ("explain", "nix", "a"),
        ("artifacts", "nix"),
        ("cancel", "nix"),
        ("pause", "nix"),
        ("resume", "nix"),
        ("retry", "nix"),
        ("signal", "nix", "go"),
        ("decide", "nix", "ok", "approve", "--by", "ann"),
    ],
)
def test_a_task_that_does_not_exist_is_a_usage_error(
    cli: Cli, installation: Installation, args: tuple[str, ...]
):
    result = cli(*args, "--db", installation.address)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "error: there is no task 'nix'" in result.stderr


def test_show_says_that_the_node_that_failed_is_optional(cli: Cli, installation: Installation):
    first, failing = FAILING["nodes"]
    flow = {"nodes": [first, {**failing, "optional": True}]}
    installation.finish(flow, task_id="t1")
    shown = cli("show", "t1", "--db", installation.address).stdout
    assert "finished" in shown
    assert "optional node 'b': " in shown
    assert "optional: " in next(line for line in shown.splitlines() if line.startswith("│ b "))


def test_watch_prints_every_event_and_fails_with_the_task(cli: Cli, installation: Installation):
    installation.finish(FAILING, task_id="t1")
    result = cli("watch", "t1", "--db", installation.address)
    assert result.exit_code == 1
    lines = [" ".join(line.split()[2:4]) for line in result.stdout.splitlines() if " s  " in line]
    assert [line for line in lines if line.startswith("b ")] == [
        "b queued",
        "b running",
        "b failed",
    ]


def test_watch_prints_an_event_a_line_as_json(cli: Cli, installation: Installation):
    installation.finish(ONE, task_id="t1")
    result = cli("watch", "t1", "--db", installation.address, "--json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-1]["node_id"], events[-1]["status"]) == (None, "finished")


def test_explain_says_why_a_node_is_not_running(cli: Cli, installation: Installation):
    installation.submit(FAILING, task_id="t1")
    explained = cli("explain", "t1", "b", "--db", installation.address).stdout
    assert explained.startswith(
        "'b' waits for 'a'. The task does not continue: no coordinator runs. "
    )
    said = as_json(cli("explain", "t1", "a", "--db", installation.address, "--json"))
    assert (said["node_id"], "no live worker serves the role 'work'" in said["explanation"]) == (
        "a",
        True,
    )


def test_explain_of_a_node_that_does_not_exist_is_a_usage_error(
    cli: Cli, installation: Installation
):
    installation.submit(graph(node("resize"), node("mail")), task_id="t1")
    for name, more in (("nix", ""), ("resise", ": did you mean 'resize'?")):
        result = cli("explain", "t1", name, "--db", installation.address)
        assert result.exit_code == 2
        assert f"task 't1' has no node {name!r}{more}\n" in result.stderr


def test_artifacts_are_printed_a_line_each(cli: Cli, installation: Installation):
    installation.finish(STREAM, task_id="t1")
    lines = cli("artifacts", "t1", "--db", installation.address).stdout.splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines] == [
        '{"number": 0}',
        '{"number": 1}',
        '{"number": 2}',
    ]
    said = [
        json.loads(line)
        for line in cli(
            "artifacts", "t1", "a", "--db", installation.address, "--json"
        ).stdout.splitlines()
    ]
    assert [item["meta"]["number"] for item in said] == [0, 1, 2]
    assert cli("artifacts", "t1", "nix", "--db", installation.address).exit_code == 2


def test_artifacts_of_a_shard_are_printed(cli: Cli, installation: Installation):
    reads = {"start_when": "first_batch", "shards": 2}
    installation.finish(
        {"nodes": [*STREAM["nodes"], node("c", "work", "a", io=reads)]}, task_id="t1"
    )
    result = cli("artifacts", "t1", "c[0]", "--db", installation.address)
    assert (result.exit_code, result.stdout.count("c  batch 0/a:")) == (0, 2)


def test_a_task_is_paused_resumed_and_cancelled(cli: Cli, installation: Installation):
    installation.submit(ONE, task_id="t1")
    at = ("--db", installation.address)
    assert cli("pause", "t1", *at).stdout == "task t1 is paused\n"
    assert as_json(cli("resume", "t1", *at, "--json")) == {"task_id": "t1", "status": "queued"}
    assert cli("cancel", "t1", "--reason", "no need", *at).stdout == "task t1 is cancelled\n"
    assert cli("pause", "t1", *at).stdout == "task t1 is cancelled\n"


def test_a_forced_cancel_ends_the_nodes_of_finally(cli: Cli, installation: Installation):
    flow = {**ONE, "finally": [{"node_id": "tidy", "type": "tidy"}]}
    installation.submit(flow, task_id="t1")
    at = ("--db", installation.address)
    assert cli("cancel", "t1", *at).stdout == "task t1 is cancelling\n"
    assert cli("retry", "t1", *at).exit_code != 0
    assert cli("cancel", "t1", "--force", *at).stdout == "task t1 is cancelled\n"
    shown = as_json(cli("show", "t1", *at, "--json"))
    assert shown["nodes"]["tidy"]["phase"] == "finally"
    refused = cli("retry", "t1", "--from", "tidy", *at)
    assert "node 'tidy' is in finally, and runs again by itself" in refused.stderr


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_change_that_a_task_does_not_need_is_reported_as_nothing_to_do(
    cli: Cli, installation: Installation, verb: str
):
    installation.finish(ONE, task_id="t1")
    result = cli(verb, "t1", "--db", installation.address)
    assert (result.exit_code, result.stdout) == (0, "task t1 is finished\n")
    assert result.stderr.endswith("nothing to do: task t1 was finished before\n")


def test_a_change_that_a_task_needs_is_not_reported_as_nothing_to_do(
    cli: Cli, installation: Installation
):
    installation.submit(ONE, task_id="t1")
    said = [cli(verb, "t1", "--db", installation.address).stderr for verb in ("pause", "resume")]
    assert "nothing to do" not in "".join(said)
    assert "nothing to do" in cli("resume", "t1", "--db", installation.address).stderr


def test_a_resume_that_reaches_child_tasks_alone_is_not_reported_as_nothing_to_do(
    cli: Cli, installation: Installation
):
    nap = {"node_id": "nap", "type": "sleep", "io": {"for_sec": 3600}}
    below = {"node_id": "s", "type": "subflow", "io": {"graph": {"nodes": [nap]}}}
    installation.defer({"nodes": [nap, below]}, task_id="t1")
    resumed = cli("resume", "t1", "--db", installation.address)
    assert resumed.stdout == "task t1 is running\n"
    assert "nothing to do" not in resumed.stderr


def test_a_failed_task_is_retried_from_a_node(cli: Cli, installation: Installation):
    installation.finish(FAILING, task_id="t1")
    assert (
        as_json(cli("retry", "t1", "--from", "a", "--db", installation.address, "--json"))["status"]
        != "failed"
    )
    nodes = installation.do(lambda client: client.get_task("t1")).nodes
    assert nodes["a"].status == nodes["b"].status == "queued"


def test_a_task_that_did_not_fail_is_not_retried(cli: Cli, installation: Installation):
    installation.finish(ONE, task_id="t1")
    result = cli("retry", "t1", "--db", installation.address)
    assert result.exit_code == 2
    assert "only a failed or cancelled task is retried" in result.stderr


def test_without_a_store_it_is_said_how_to_name_one(cli: Cli):
    result = cli("ls")
    assert result.exit_code == 2
    assert (
        result.stderr
        == "error: no store is configured; use --db sqlite:///path or --db mongodb://host/name,"
        " set db in a --config file, or set FLOWKIT_DB\n"
    )


def test_the_store_is_found_in_a_file_or_the_environment(
    cli: Cli, installation: Installation, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    installation.submit(ONE, task_id="t1")
    (folder / "c.toml").write_text(f'db = "{installation.address}"\nheartbeat_soft_sec = 3\n')
    assert cli("show", "t1", "--config", "c.toml").exit_code == 0
    monkeypatch.setenv("FLOWKIT_DB", installation.address)
    assert cli("show", "t1").exit_code == 0
    assert cli("show", "t1", "--db", "memory://another").exit_code == 2


def test_a_wrong_configuration_names_the_file_and_the_field(cli: Cli, folder: Path):
    (folder / "c.toml").write_text('dbb = "memory://"\n')
    result = cli("ls", "--config", "c.toml")
    assert result.exit_code == 2
    assert result.stderr == "error: dbb (from c.toml): there is no such field\n"


def test_an_address_that_no_plugin_knows_is_a_usage_error(cli: Cli):
    result = cli("ls", "--db", "redis://x")
    assert result.exit_code == 2
    assert "no plugin opens a store from 'redis://x'" in result.stderr


WAITING = {"nodes": [{"node_id": "w", "type": "wait_signal", "io": {"signal": "go"}}]}


def test_signal_wakes_the_node_that_waits_for_it(cli: Cli, installation: Installation):
    installation.submit(WAITING, task_id="t1")
    shown = cli("show", "t1", "--db", installation.address).stdout
    assert "waits for a signal" in shown
    sent = (
        "signal",
        "t1",
        "go",
        "--payload",
        '{"n": 1}',
        "--id",
        "x",
        "--db",
        installation.address,
    )
    result = cli(*sent)
    assert (result.exit_code, result.stdout) == (0, "task t1 has the signal go\n")
    said = as_json(cli(*sent, "--json"))
    assert said == {"task_id": "t1", "signal": "go", "status": "finished"}
    shown = as_json(cli("show", "t1", "--db", installation.address, "--json"))
    assert shown["nodes"]["w"]["result"] == {"n": 1}
    watched = cli("watch", "t1", "--db", installation.address).stdout
    assert "task  signal go" in watched


def test_a_refused_signal_and_a_payload_that_is_no_json_are_usage_errors(
    cli: Cli, installation: Installation
):
    installation.submit(WAITING, task_id="t1")
    refused = cli("signal", "t1", "stop", "--db", installation.address)
    assert refused.exit_code == 2
    assert "error: no node of task 't1' waits for the signal 'stop'" in refused.stderr
    wrong = cli("signal", "t1", "go", "--payload", "{", "--db", installation.address)
    assert wrong.exit_code == 2
    assert "--payload" in wrong.stderr


def test_a_large_map_is_shown_with_the_number_of_all_its_children(
    cli: Cli, installation: Installation
):
    m = {"node_id": "m", "type": "coordinator_fn", "io": {"fn": "noop"}}
    installation.finish({"nodes": [{**m, "map": {"over": [0] * 1_002}}]}, task_id="t1")
    where = ("--db", installation.address)
    shown = cli("show", "t1", *where).stdout
    assert "1002 finished" in shown
    assert "2 more children of 'm': see flowkit nodes t1 --map m" in shown
    assert "1003 nodes" in shown
    assert cli("nodes", "t1", "--map", "m", "--status", "failed", *where).stdout == "no nodes\n"
    missing = cli("explain", "t1", "m[1002]", *where)
    assert missing.exit_code == 2
    assert "the children of 'm' are 'm[0]' to 'm[1001]'" in missing.stderr


ASKING = {
    "nodes": [
        {"node_id": "ok", "type": "approval", "io": {"prompt": "Ship?", "assignees": ["ann"]}}
    ]
}


def test_approvals_are_listed_and_decided(cli: Cli, installation: Installation):
    installation.submit(ASKING, task_id="t1")
    where = ("--db", installation.address)
    listed = cli("approvals", *where).stdout
    assert "Ship?" in listed
    assert "approve, reject" in listed
    (item,) = as_json(cli("approvals", "--assignee", "ann", "--json", *where))["items"]
    assert (item["task_id"], item["node_id"], item["assignees"]) == ("t1", "ok", ["ann"])
    assert cli("approvals", "--assignee", "bob", *where).stdout == "no approvals\n"
    decision = ("decide", "t1", "ok", "approve", "--by", "ann", "--values", '{"n": 1}')
    result = cli(*decision, "--comment", "fine", *where)
    assert (result.exit_code, result.stdout) == (0, "node ok of task t1 is decided: approve\n")
    again = cli(*decision, *where)
    assert again.exit_code == 2
    assert "was decided before: 'approve' by 'ann'" in again.stderr
    shown = as_json(cli("show", "t1", "--json", *where))["nodes"]["ok"]["result"]
    assert (shown["values"], shown["comment"]) == ({"n": 1}, "fine")
    assert cli("approvals", *where).stdout == "no approvals\n"


def test_decide_with_json_says_how_the_task_is(cli: Cli, installation: Installation):
    installation.submit(ASKING, task_id="t1")
    where = ("--db", installation.address, "--json")
    said = as_json(cli("decide", "t1", "ok", "reject", "--by", "ann", *where))
    assert said == {"task_id": "t1", "node_id": "ok", "choice": "reject", "status": "failed"}


def test_show_tree_shows_the_nodes_of_child_tasks_below_the_nodes_that_run_them(
    cli: Cli, installation: Installation
):
    middle = {"nodes": [{"node_id": "low", "type": "subflow", "io": {"graph": ONE}}]}
    nodes = [
        {"node_id": "s", "type": "subflow", "io": {"graph": middle}},
        {"node_id": "z", "type": "work", "depends_on": ["s"]},
    ]
    view = installation.finish({"nodes": nodes}, task_id="t1")
    args = ("show", "t1", "--db", installation.address)
    shown = [line.split("│")[1] for line in cli(*args, "--tree").stdout.splitlines() if "│" in line]
    assert [cell.rstrip() for cell in shown] == [" s", "   low", "     a", " z"]
    assert "   low" not in cli(*args).stdout
    child_id = view.nodes["s"].child_task_id
    assert f"parent: node s of {view.id}" in cli("show", str(child_id), *args[2:]).stdout
    lines = cli(*args, "--tree", "--json").stdout.splitlines()
    assert [json.loads(line)["parent_node"] for line in lines] == [None, "s", "low"]


def test_show_lists_the_children_of_a_map_below_it(cli: Cli, installation: Installation):
    mapped = {"type": "coordinator_fn", "io": {"fn": "noop"}, "map": {"over": [1, 2]}}
    undo = {"undo": {"type": "coordinator_fn", "io": {"fn": "noop"}}}
    end = {"fn": "task.end", "fn_args": {"status": "failed"}}
    after = {"node_id": "end", "type": "coordinator_fn", "depends_on": ["m"], "io": end}
    installation.finish({"nodes": [{"node_id": "m", **mapped, **undo}, after]}, task_id="t1")
    said = cli("show", "t1", "--db", installation.address).stdout
    shown = [line.split("│")[1].rstrip() for line in said.splitlines() if "│" in line]
    assert shown == [
        " m",
        "   m[0]",
        "   m[1]",
        " end",
        " m~undo",
        "   m[0]~undo",
        "   m[1]~undo",
    ]


def test_show_tree_shows_the_nodes_of_some_child_tasks_of_a_map(
    cli: Cli, installation: Installation
):
    mapped = {
        "node_id": "m",
        "type": "subflow",
        "map": {"over": list(range(22))},
        "io": {"graph": ONE},
    }
    installation.finish({"nodes": [mapped]}, task_id="t1")
    args = ("show", "t1", "--db", installation.address)
    said = cli(*args, "--tree").stdout
    shown = [line.split("│")[1].rstrip() for line in said.splitlines() if "│" in line]
    assert shown == [
        " m",
        *(cell for number in range(20) for cell in (f"   m[{number}]", "     a")),
        "   m[20]",
        "   m[21]",
    ]
    assert "2 more child tasks: run `flowkit show` with the id of one" in said
    lines = [json.loads(line) for line in cli(*args, "--tree", "--json").stdout.splitlines()]
    assert [line.pop("omitted_child_tasks") for line in lines] == [2, *[0] * 20]
    assert lines[0] == json.loads(cli(*args, "--json").stdout)


def test_show_tree_shows_the_rounds_of_a_loop(cli: Cli, installation: Installation):
    io = {"graph": ONE, "until": "iteration == 2"}
    view = installation.finish(
        {"nodes": [{"node_id": "l", "type": "loop", "io": io}]}, task_id="t1"
    )
    args = ("show", "t1", "--db", installation.address)
    shown = [line.split("│")[1] for line in cli(*args, "--tree").stdout.splitlines() if "│" in line]
    assert [cell.strip() for cell in shown] == ["l", "a (round 1)", "a (round 2)", "a (round 3)"]
    assert list(view.nodes["l"].rounds) == [0, 1, 2]
    assert view.nodes["l"].rounds[2] == view.nodes["l"].child_task_id
    lines = cli(*args, "--tree", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["t1", *view.nodes["l"].rounds.values()]


def test_workers_are_listed_with_their_state(cli: Cli, installation: Installation):
    assert cli("workers", "--db", installation.address).stdout == "no workers\n"
    info = {
        "running": "1",
        "waiting": "2",
        "max_concurrency": "4",
        "host": "h",
        "pid": "7",
        "version": "1.0",
    }
    session = WorkerSession("w1", ("work", "more"), beat=1, started_at=0.0, info=info)
    installation.do(lambda client: put_session(client.store, session))
    (listed,) = as_json(cli("workers", "--db", installation.address, "--json"))
    assert (listed["id"], listed["silent"], listed["slots"]) == ("w1", True, 4)
    out = cli("workers", "--db", installation.address).stdout
    for text in ("w1", "more, work", "1 of 4, 2 waiting", "silent", "process 7 on h"):
        assert text in out


def test_run_now_ends_a_pause(cli: Cli, installation: Installation):
    nap = {"nodes": [{"node_id": "nap", "type": "sleep", "io": {"for_sec": 3600}}]}
    task_id = installation.submit(nap)
    result = cli("run-now", task_id, "nap", "--db", installation.address, "--json")
    assert as_json(result)["status"] == "finished"
    again = cli("run-now", task_id, "nap", "--db", installation.address)
    assert again.exit_code == 2
    assert "is finished; it has no pause to end" in again.stderr


def test_many_tasks_are_cancelled_and_retried_with_progress(cli: Cli, installation: Installation):
    for name in ("t1", "t2", "t3"):
        installation.submit(ONE, task_id=name, pipeline="q" if name == "t3" else "p")
    at = ("--db", installation.address)
    done = cli("cancel-tasks", "--pipeline", "p", "--reason", "no need", *at)
    assert (done.exit_code, done.stdout) == (0, "cancelled 2 tasks\n")
    assert "cancelled 2 of 2 tasks\n" in done.stderr
    assert installation.do(lambda client: client.get_task("t1")).error == "no need"
    again = as_json(cli("cancel-tasks", "--pipeline", "p", "--json", *at))
    assert again == {"cancelled": 0, "found": 0, "refused": {}}
    assert cli("retry-tasks", "--status", "cancelled", *at).stdout == "retried 2 tasks\n"
    for verb in ("cancel-tasks", "retry-tasks"):
        nothing = cli(verb, *at)
        assert nothing.exit_code == 2
        for option in ("--status", "--label", "--root", "--reason-code", "--created-after"):
            assert option in nothing.stderr


def test_the_progress_of_a_change_of_many_tasks_says_how_many_there_are(
    cli: Cli, installation: Installation
):
    async def submit(client: Client) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(TASKS_AT_ONCE + 10):
                group.start_soon(partial(client.create_task, graph=ONE, pipeline="p"))

    installation.do(submit)
    done = cli("cancel-tasks", "--pipeline", "p", "--db", installation.address)
    shown = [line for line in done.stderr.splitlines() if line.startswith("cancelled")]
    assert shown == ["cancelled 50 of 60 tasks", "cancelled 60 of 60 tasks"]


def test_tasks_that_cannot_be_changed_are_named(cli: Cli, installation: Installation):
    damaged = task("damaged", spec=b"{}", status="failed")
    installation.do(lambda client: client.store.create([damaged]))
    result = cli("retry-tasks", "--status", "failed", "--db", installation.address)
    assert (result.exit_code, result.stdout) == (1, "retried 0 tasks\n")
    assert "error: the record of task 'damaged' cannot be read" in result.stderr


def test_rerun_prints_the_id_of_the_new_task(cli: Cli, installation: Installation):
    installation.submit(ONE, task_id="t1", params={"k": 1, "j": 2})
    at = ("--db", installation.address)
    new = cli("rerun", "t1", "--params", '{"k": 3}', *at).stdout.strip()
    view = installation.do(lambda client: client.get_task(new))
    assert (view.rerun_of, view.params) == ("t1", {"k": 3, "j": 2})
    assert "rerun of: t1" in cli("show", new, *at).stdout
    told = as_json(cli("rerun", new, "--json", *at))
    assert told["rerun_of"] == new


def test_resolve_settles_a_node(cli: Cli, installation: Installation):
    task_id, at = installation.submit(ONE), ("--db", installation.address)
    wrong = cli("resolve", task_id, "a", "done", "--by", "ann", *at)
    assert wrong.exit_code == 2
    assert "outcome is one of finished, failed, skipped, not 'done'" in wrong.stderr
    given = ("--by", "ann", "--result", '{"n": 1}', "--reason", "by hand")
    assert as_json(cli("resolve", task_id, "a", "finished", *given, *at, "--json"))["status"] == (
        "finished"
    )
    again = cli("resolve", task_id, "a", "finished", *given, *at)
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    view = installation.do(lambda client: client.get_task(task_id))
    assert (view.result, view.nodes["a"].resolved_by) == ({"a": {"n": 1}}, "ann")
    assert "resolved by ann" in cli("show", task_id, *at).stdout
    lines = cli("watch", task_id, *at).stdout
    assert "a  resolved as finished by ann" in lines
    assert "ann resolved it as finished: by hand" in cli("explain", task_id, "a", *at).stdout


WAITS = {
    "cache": ({"cache": {"key": "k", "ttl_sec": 60}}, "waits for the result of another node"),
    "key": ({"concurrency_key": "k"}, "waits for its key"),
    "rate": ({"rate_limit": {"key": "k", "limit": 1, "per_sec": 60}}, "waits for its rate"),
}


@pytest.mark.parametrize("waiting", CLAIM_KINDS)
def test_a_node_that_waits_for_a_place_is_shown_and_watched(
    waiting: str, cli: Cli, installation: Installation
):
    fields, text = WAITS[waiting]
    nodes = [{"node_id": name, "type": "work", **fields} for name in "ab"]

    async def wait() -> None:
        async with Coordinator(cfg=CoordinatorConfig(db=installation.address)) as coordinator:
            await coordinator.create_task(graph={"nodes": nodes}, task_id="t1")
            with anyio.fail_after(30):
                while (await coordinator.get_task("t1")).nodes["b"].waiting != waiting:
                    await anyio.sleep(0.01)

    async def cancel() -> None:
        async with Coordinator(cfg=CoordinatorConfig(db=installation.address)) as coordinator:
            await coordinator.cancel("t1")
            await coordinator.wait("t1", timeout=30)

    anyio.run(wait)
    assert text in cli("show", "t1", "--db", installation.address).stdout
    assert text in cli("nodes", "t1", "--db", installation.address).stdout
    anyio.run(cancel)
    watched = cli("watch", "t1", "--db", installation.address)
    assert (watched.exit_code, text in watched.stdout) == (1, True)


def test_show_and_watch_name_the_key_of_its_graph_for_which_a_task_waits(
    cli: Cli, installation: Installation
):
    keyed = {"nodes": [{"node_id": "a", "type": "work"}], "concurrency": {"key": "k"}}

    async def wait() -> None:
        async with Coordinator(cfg=CoordinatorConfig(db=installation.address)) as coordinator:
            for name in ("t1", "t2"):
                await coordinator.create_task(graph=keyed, task_id=name)
            with anyio.fail_after(30):
                while (await coordinator.get_task("t2")).waiting != "key":
                    await anyio.sleep(0.01)

    async def cancel() -> None:
        async with Coordinator(cfg=CoordinatorConfig(db=installation.address)) as coordinator:
            await coordinator.cancel("t2")
            await coordinator.wait("t2", timeout=30)

    anyio.run(wait)
    text = "waits for: key 'k'"
    shown = [cli("show", name, "--db", installation.address).stdout for name in ("t1", "t2")]
    assert [text in one for one in shown] == [False, True]
    anyio.run(cancel)
    watched = cli("watch", "t2", "--db", installation.address)
    assert "deferred  waits for its key 'k'" in watched.stdout
