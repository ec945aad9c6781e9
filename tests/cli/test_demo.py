import json

from flowkit.cli._demo import UPTO, primes_between
from tests.cli.conftest import Cli


def test_the_demo_streams_loses_a_worker_and_draws_a_timeline(cli: Cli):
    result = cli("demo", "--seconds", 1)
    assert result.exit_code == 0
    said = [line for line in result.stdout.splitlines() if line.startswith("»")]
    assert said == [
        "» 'count' starts on the first batch while 'split' still runs",
        "» worker 'ben' is stopped in the middle of 'count', and worker 'cleo' starts",
        "» worker 'ben' hands back 'count' and its results",
        "» worker 'cleo' takes over 'count'",
    ]
    bars = [
        [*line.split()[:2], line.rstrip().rsplit(" s  ", 1)[1]]
        for line in result.stdout.splitlines()
        if "█" in line
    ]
    assert bars == [
        ["split", "ada", "finished"],
        ["count", "ben", "handed back"],
        ["count", "cleo", "finished"],
        ["total", "coordinator", "finished"],
    ]
    assert (
        "30 ranges counted, 21,221 primes below 240,000; a sequential count gives 21,221"
        in result.stdout
    )


def test_the_demo_prints_its_events_as_json(cli: Cli):
    result = cli("demo", "--seconds", 0.5, "--json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    first = {(event["node_id"], event["status"]): event["seq"] for event in reversed(events)}
    assert first["count", "running"] < first["split", "finished"]
    assert [
        event["data"]["worker_id"]
        for event in events
        if (event["node_id"], event["status"]) == ("count", "running")
    ] == [
        "ben",
        "cleo",
    ]


def test_primes_of_ranges_add_up_to_those_of_the_whole():
    assert primes_between(0, 100) == 25
    assert primes_between(0, 2) == 0
    assert (
        sum(primes_between(start, start + 24_000) for start in range(0, UPTO, 24_000))
        == primes_between(0, UPTO)
        == 21_221
    )
