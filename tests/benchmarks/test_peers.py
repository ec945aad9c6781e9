"""The page about performance says what the stored figures of a run say."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.peers import report
from benchmarks.peers.chart import PANELS, chart, rates
from benchmarks.peers.results import Figure, Results, Round, loaded
from benchmarks.peers.services import SERVICES
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.workloads import WORKLOADS, of_round, takes_too_long
from benchmarks.processes import with_descendants

CHAIN = WORKLOADS["chain"]


def results(*rounds: Round) -> Results:
    machine = dict.fromkeys(("date", "processor", "cores", "memory", "system", "python"), "?")
    return Results(machine=machine, rounds=list(rounds))


def measured(
    system: str, number: int, seconds: float, *, workload: str = "chain", load: float = 0.5
) -> Round:
    figures = {workload: Figure(seconds, own=0.02, servers=0.01)}
    return Round(system, number, load, bare_nodes_a_sec=30_000, figures=figures)


def row(table: str, title: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.strip("| *").startswith(title))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_has_the_medians_of_the_rounds():
    rounds = (measured("arq", number, took) for number, took in enumerate((0.1, 9.0, 0.2), 1))
    assert row(report.times(results(*rounds)), "arq")[1] == "20.0"


def test_what_was_not_measured_is_a_dash():
    assert row(report.times(results(measured("arq", 1, 0.1))), "arq")[2:] == ["–"] * 5


def test_a_chain_is_shown_in_milliseconds_and_the_rest_in_steps_a_second():
    both = (measured("arq", 1, 0.1), measured("arq", 2, 0.5, workload="tasks"))
    assert row(report.times(results(*both)), "arq")[1:5] == ["10.0", "–", "–", "2,000"]


def test_processor_time_is_that_of_the_system_and_of_its_servers():
    table = report.processor_times(results(measured("arq", 1, 0.1)))
    assert row(table, "arq")[1] == "2.00 + 1.00"


def test_systems_without_servers_have_one_processor_time():
    figure = Figure(0.1, own=0.02, servers=0.0)
    one = replace(measured("dbos-sqlite", 1, 0.1), figures={"chain": figure})
    table = report.processor_times(results(one))
    assert row(table, "DBOS")[1] == "2.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12_345.0, "12,300"), (999.9, "1,000")],
)
def test_numbers_have_three_digits(value, text):
    assert report.amount(value) == text


def test_the_page_says_that_other_programs_disturbed_a_run():
    quiet, busy = measured("arq", 1, 0.1), measured("arq", 2, 0.1, load=7.5)
    assert "Other programs" not in report.conditions(results(quiet))
    assert "up to 7.5" in report.conditions(results(quiet, busy))


def test_the_page_says_which_system_is_left_out_and_why():
    found = replace(
        results(measured("arq", 1, 0.1)), left_out={"celery-redis": "celery is not installed"}
    )
    assert "Left out: Celery, Redis, because celery is not installed." in report.conditions(found)


def test_the_table_of_what_survives_has_the_systems_that_were_measured():
    table = report.survival(results(measured("arq", 1, 0.1)))
    assert row(table, "arq")[1] == SYSTEMS["arq"].worker_killed
    assert len(table.splitlines()) == 3


def test_the_chart_has_a_bar_in_each_panel_for_each_measured_system():
    found = results(measured("arq", 1, 0.1), measured("celery-redis", 1, 0.2))
    bars = list(ElementTree.fromstring(chart(found)).iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 1 + 2 * len(PANELS)  # and the white ground


def test_bars_are_as_long_as_the_rates_compared_with_the_highest():
    found = results(measured("arq", 1, 0.1), measured("celery-redis", 1, 0.2))
    assert {system.name: rate for system, rate in rates(found, CHAIN)} == {
        "celery-redis": 50.0,
        "arq": 100.0,
    }
    widths = [
        float(bar.get("width"))
        for bar in ElementTree.fromstring(chart(found)).iter("{http://www.w3.org/2000/svg}rect")
    ][1:3]
    assert widths[0] == widths[1] / 2


def test_figures_are_the_same_after_they_were_stored(tmp_path: Path):
    found = results(measured("arq", 1, 0.1))
    found.save(tmp_path / "results.json")
    assert loaded(tmp_path / "results.json") == found


def test_a_round_that_is_in_the_file_is_not_measured_again():
    found = results(measured("arq", 1, 0.1))
    assert found.has("arq", 1)
    assert not found.has("arq", 2)
    assert not found.has("celery-redis", 1)


def test_a_workload_is_left_out_if_a_smaller_one_shows_that_it_takes_too_long():
    large = WORKLOADS["fan-10000"]
    assert not takes_too_long(large, {"fan-1000": 2.9})
    assert takes_too_long(large, {"fan-1000": 3.1})
    assert not takes_too_long(large, {})


def test_the_first_round_alone_runs_the_largest_fan():
    assert [one.name for one in of_round(1)] == [*WORKLOADS]
    assert [one.name for one in of_round(2)] == [name for name in WORKLOADS if name != "fan-10000"]


def test_processes_are_counted_with_all_that_they_started():
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert with_descendants([2], parents) == {2, 3, 4}


def test_every_system_has_a_module_and_servers_that_can_be_started():
    for system in SYSTEMS.values():
        assert find_spec(f"benchmarks.peers.{system.module}") is not None
        assert set(system.services) <= SERVICES.keys() == report.TITLES.keys()
        assert system.lacks <= WORKLOADS.keys()
