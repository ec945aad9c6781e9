"""Each kind of fault happens and has its documented effect."""

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest

from flowkit_testing.simulation import (
    PROFILES,
    Faults,
    SimCluster,
    SimulationFailed,
    crash_everywhere,
    run_seed,
    simulate,
)
from tests.simulation.scenarios import HANDLERS, STANDARD, chain

KINDS = {
    "publish_refused": Faults(publish_refused=0.1),
    "publish_unconfirmed": Faults(publish_unconfirmed=0.1),
    "publish_partial": Faults(publish_partial=0.2),
    "publish_late": Faults(publish_late=0.3),
    "duplicate": Faults(duplicate=0.2),
    "delay": Faults(delay=0.3),
    "broadcast_lost": Faults(broadcast_lost=0.5),
    "receive_fails": Faults(receive_fails=0.1),
    "rebalance": Faults(rebalances_per_run=4),
    "rewind": Faults(rewinds_per_run=8),
    "tail_loss": Faults(tail_loss=0.1),
    "bus_outage": Faults(bus_outages_per_run=3),
    "read_fails": Faults(read_fails=0.1),
    "write_refused": Faults(write_refused=0.1),
    "write_unconfirmed": Faults(write_unconfirmed=0.1),
    "write_late": Faults(write_late=0.1),
    "write_rolled_back": Faults(write_rolled_back=0.1),
    "conflict": Faults(conflict=0.2),
    "slow": Faults(slow=0.1),
    "stale_read": Faults(stale_read=0.3),
    "session_lost": Faults(session_lost=0.5),
    "store_outage": Faults(store_outages_per_run=3),
    "damaged_records": Faults(damaged_records=4),
    "skew": Faults(skew_sec=60),
    "clock_jump": Faults(jumps_per_run=4),
    "crash": Faults(crash=0.9, crash_steps=200),
    "crash_at_start": Faults(crash_at_start=0.3),
    "pause": Faults(pauses_per_run=4),
    "stop": Faults(stops_per_run=4),
    "join": Faults(joins_per_run=4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_fault_happens_alone_and_the_cluster_gets_over_it(kind: str) -> None:
    found = Counter[str]()
    scenario = STANDARD[
        {"broadcast_lost": "cancel", "stale_read": "streaming"}.get(kind, "fan_out_and_in")
    ].scenario
    for seed in range(4):
        report = simulate(
            scenario, seed=seed, faults=replace(KINDS[kind], period_min_sec=5.0), handlers=HANDLERS
        )
        found += report.faults
    assert set(found) == {kind}


def test_every_field_of_the_faults_is_in_the_profile_of_all() -> None:
    calm, everything = Faults(), PROFILES["all"]
    rates = [field.name for field in fields(Faults) if getattr(calm, field.name) == 0]
    assert [name for name in rates if not getattr(everything, name)] == []


def test_a_client_that_dies_while_it_submits_submits_once() -> None:
    report = simulate(chain, seeds=12, faults=Faults(client_crash=1.0), handlers=HANDLERS)
    assert set(report.faults) == {"crash"}
    assert report.executions == 5 * 12


def test_profiles_are_put_together_by_their_names() -> None:
    both = Faults.of(["bus", "crashes"])
    assert (both.crash, both.duplicate, both.conflict) == (
        PROFILES["crashes"].crash,
        PROFILES["bus"].duplicate,
        0.0,
    )
    with pytest.raises(ValueError, match="there is no fault profile 'buss'; there are none, bus"):
        Faults.of("buss")


def test_a_varied_profile_differs_from_seed_to_seed() -> None:
    outcomes = [run_seed(STANDARD["chain"].setup("all"), seed) for seed in range(6)]
    assert all(outcome.error is None for outcome in outcomes)
    assert len({frozenset(outcome.report.faults) for outcome in outcomes}) > 1


def test_nothing_goes_wrong_after_the_first_period() -> None:
    for seed in range(5):
        outcome = run_seed(STANDARD["chain"].setup("all"), seed)
        quiet = next(place for place, line in enumerate(outcome.log) if "no more faults" in line)
        assert not [line for line in outcome.log[quiet:] if " ! " in line]


def test_a_cluster_that_cannot_get_over_it_is_stuck_and_says_why() -> None:
    with pytest.raises(SimulationFailed) as failed:
        simulate(
            chain, seed=3, faults="none", handlers={"other": HANDLERS["work"]}, converge_sec=100
        )
    assert "Stuck: after 100 s" in str(failed.value)
    assert "task t" in str(failed.value)
    assert "role 'work'" in str(failed.value)
    assert str(failed.value).count("replay: simulate(chain, …, seed=3)") == 2


async def _nothing(cluster: SimCluster) -> None:
    pass


@pytest.mark.parametrize(
    "arguments",
    [
        {"seeds": 0},
        {"seeds": -1},
        {"seeds": "x"},
        {"seeds": 1.5},
        {"seeds": True},
        {"first_seed": None},
        {"seed": "x"},
        {"faults": 3},
        {"faults": None},
        {"faults": [["bus"]]},
    ],
    ids=repr,
)
def test_a_wrong_argument_is_refused_by_its_name(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name} is|^there is no fault profile"):
        simulate(_nothing, **{"seeds": 1, **arguments})


@pytest.mark.parametrize("arguments", [{"every": 0}, {"every": "x"}, {"seed": None}], ids=repr)
def test_a_wrong_argument_of_crash_everywhere_is_refused(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name} is a whole number"):
        crash_everywhere(_nothing, **arguments)
