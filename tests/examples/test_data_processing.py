"""The example that counts a log file by map and reduce."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.data_processing.flow import log_report
from examples.data_processing.handlers import HANDLERS, lines_in
from examples.data_processing.sample import write_log
from flowkit_testing import Cluster
from flowkit_testing.simulation import Faults, SimCluster, simulate

LINES = 6_000
MAPS = [f"map_{part}" for part in range(4)]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "access.log"
    write_log(path, LINES)
    return path


def counted_by_a_plain_loop(log: Path) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = {}
    for line in log.read_text().splitlines():
        _, _, path, status, size = line.split()
        requests, errors, total = counts.get(path, [0, 0, 0])
        counts[path] = [requests + 1, errors + (int(status) >= 500), total + int(size)]
    return counts


def test_a_line_begins_in_one_of_adjoining_ranges(tmp_path: Path):
    path = tmp_path / "lines"
    lines = ["one\n", "\n", "three\n", "a longer line\n", "the last has no end"]
    path.write_text("".join(lines))
    size = path.stat().st_size
    for step in range(1, size + 1):
        cuts = [*range(0, size, step), size]
        assert [
            line for begin, end in pairwise(cuts) for line in lines_in(path, begin, end)
        ] == lines


async def test_the_report_counts_what_a_plain_loop_counts(log: Path):
    async with Cluster(workers=2) as cluster:
        view: Any = await cluster.run(log_report, handlers=HANDLERS, params={"log": str(log)})
        stored = {
            node: [one async for one in cluster.client.artifacts(view.id, node)]
            for node in (*MAPS, "reduce")
        }

    expected = counted_by_a_plain_loop(log)
    totals = dict(
        zip(
            ("requests", "errors", "bytes"),
            map(sum, zip(*expected.values(), strict=True)),
            strict=True,
        )
    )
    result = view.result["report"]
    assert view.status == "finished"
    assert result["totals"] == totals == view.nodes["reduce"].metrics
    assert result["tables"][0]["rows"] == [[path, *expected[path]] for path in sorted(expected)]
    assert [row[0] for row in result["tables"][1]["rows"]] == MAPS
    assert sum(row[1] for row in result["tables"][1]["rows"]) == LINES
    assert view.vars["parts"] == {node: view.nodes[node].metrics for node in MAPS}
    assert len(stored["reduce"]) == sum(len(stored[node]) for node in MAPS) > len(MAPS)


def test_nothing_is_lost_or_counted_twice_when_processes_are_killed(log: Path):
    expected = counted_by_a_plain_loop(log)
    patient: Any = log_report().to_dict()
    for node in patient["nodes"]:
        node["retry_policy"] = {"max": 30, "backoff_sec": 1}

    async def scenario(cluster: SimCluster) -> None:
        view = await cluster.run(patient, handlers=HANDLERS, params={"log": str(log)})
        cluster.assert_finished(view)
        assert view.nodes["reduce"].result == expected
        assert view.nodes["totals"].result["metrics"]["requests"] == LINES

    report = simulate(scenario, seeds=5, faults=Faults(crash=1.0, crash_steps=800))

    assert report.faults["crash"] > 0
