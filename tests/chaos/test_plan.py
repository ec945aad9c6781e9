"""Disasters of a seed, ledgers after a kill, and recovery times."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.clients import unfinished
from tests.chaos.disasters import BUS, PAUSE_OF, PROCESSES, STORE, disasters
from tests.chaos.ledger import Ledger, read_ledgers
from tests.chaos.recovery import recovery
from tests.chaos.report import FOUND, Plan, Report, page_of
from tests.chaos.test_checker import AT, History


@pytest.mark.parametrize("kinds", [PROCESSES, BUS, STORE])
def test_a_seed_gives_the_same_disasters_each_time_and_another_seed_others(kinds) -> None:
    first, again, other = (
        list(islice(disasters(kinds, PAUSE_OF[kinds], seed=seed), 500)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("kinds", [PROCESSES, BUS, STORE])
def test_each_round_has_every_disaster_as_often_as_its_kind_says(kinds) -> None:
    size = sum(kind.times for kind in kinds)
    drawn = disasters(kinds, PAUSE_OF[kinds], seed=1)
    for _ in range(3):
        assert Counter(disaster.kind for disaster in islice(drawn, size)) == {
            kind: kind.times for kind in kinds
        }


def test_processes_are_killed_fifteen_times_a_minute_or_more() -> None:
    first = list(islice(disasters(PROCESSES, PAUSE_OF[PROCESSES], seed=1), 1000))
    kills, seconds = (
        sum(disaster.kind.kills for disaster in first),
        sum(disaster.after_sec for disaster in first),
    )
    assert kills / seconds * 60 >= 15


def test_a_round_of_disasters_of_processes_lasts_less_than_a_minute() -> None:
    rounds, size = 20, sum(kind.times for kind in PROCESSES)
    drawn = islice(disasters(PROCESSES, PAUSE_OF[PROCESSES], seed=1), rounds * size)
    assert sum(disaster.after_sec for disaster in drawn) / rounds < 60


@pytest.mark.parametrize("kinds", [BUS, STORE])
def test_a_round_of_disasters_of_servers_lasts_a_minute_beside_the_time_servers_need_to_start(
    kinds,
) -> None:
    rounds, size = 20, sum(kind.times for kind in kinds)
    drawn = islice(disasters(kinds, PAUSE_OF[kinds], seed=1), rounds * size)
    assert sum(disaster.after_sec + disaster.for_sec for disaster in drawn) / rounds < 60


def test_a_line_that_a_kill_tore_is_left_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "worker")
    ledger.write("began", node="a")
    ledger.write("ended", node="a")
    with ledger.path.open("ab") as file:
        file.write(b'{"at":12,"what":"beg')
    assert [(line["what"], line["node"]) for line in read_ledgers(tmp_path, "worker")] == [
        ("began", "a"),
        ("ended", "a"),
    ]


def test_a_client_resumes_the_submissions_whose_end_an_earlier_client_did_not_see() -> None:
    history = History("chain", by_key=True)
    assert unfinished(history.clients) == []
    history.clients.pop()
    assert [(one.id, one.flow_name, one.by_key) for one in unfinished(history.clients)] == [
        ("submission", "chain", True)
    ]


def history_with_an_outage() -> History:
    history = History("chain")
    history.workers.clear()
    history.worker("n0", "began")
    history.worker("n0", "began", sec=5, attempt=2)
    history.workers[-1]["pid"] = 3
    history.worker("n0", "ended", sec=6, attempt=2)
    history.worker("n1", "began", sec=16.5)
    return history


WORKER_KILLED = {"name": "worker killed", "at": AT + 1, "until": AT + 2, "pid": 2}
STEPPED_DOWN = {"name": "primary stepped down", "at": AT + 5.5, "until": AT + 9, "back": AT + 6}
BROKER_KILLED = {"name": "broker killed", "at": AT + 5.5, "until": AT + 15.5, "back": AT + 15.5}


def test_recovery_is_from_the_kill_until_the_nodes_of_the_killed_ran_elsewhere() -> None:
    (row,) = recovery(history_with_an_outage().evidence(), [WORKER_KILLED])
    assert (row.times, row.counted, row.from_end, row.hit) == (1, 1, False, pytest.approx((4, 4)))


def test_where_others_take_over_it_counts_from_the_beginning_else_from_the_end() -> None:
    evidence = history_with_an_outage().evidence()
    (row,) = recovery(evidence, [STEPPED_DOWN])
    assert (row.from_end, row.next, row.hit) == (
        False,
        pytest.approx((11, 11)),
        pytest.approx((10.5, 10.5)),
    )
    (row,) = recovery(evidence, [BROKER_KILLED])
    assert (row.from_end, row.next, row.hit) == (True, pytest.approx((1, 1)), pytest.approx((1, 1)))


def test_what_happens_to_a_process_beside_a_servers_disaster_says_nothing_of_either() -> None:
    killed = WORKER_KILLED | {"name": "coordinator killed", "at": AT + 5}
    rows = {
        row.name: row
        for row in recovery(history_with_an_outage().evidence(), [killed, BROKER_KILLED])
    }
    assert (rows["coordinator killed"].times, rows["coordinator killed"].counted) == (1, 0)
    assert rows["broker killed"].counted == 1


def test_the_page_has_the_figures_of_both_runs_and_keeps_what_people_wrote() -> None:
    rows = recovery(history_with_an_outage().evidence(), [WORKER_KILLED])
    report = Report(
        Plan(seed=7, seconds=60), kills=41, tasks={"finished": 1200}, nodes=5, rows=rows
    )
    calm = Report(Plan(seed=8, seconds=60, calm=True), kills=3, rows=rows)
    before = f"old figures\n\n{FOUND}\n\nA bug.\n"
    page = page_of(
        report,
        calm,
        before=before,
        arguments="--minutes 1",
        machine="2 cores",
        rules=["nothing is lost", "nothing is invented"],
    )
    for part in (
        "| 41 |",
        "1,200 finished",
        "seed 8",
        "| worker killed | 1 | 1 | start |",
        "- nothing is lost;\n- nothing is invented.",
        "A bug.",
    ):
        assert part in page
    assert "old figures" not in page
