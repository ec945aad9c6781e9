"""Patterns of branching."""

from pathlib import Path

import pytest

from flowkit_testing import Cluster
from tests.patterns.support import ends, fails, gives, play, ran, shows


@shows("conditional_step")
@pytest.mark.parametrize(("amount", "audit"), [(5_000, "finished"), (5, "skipped")])
async def test_only_large_amounts_are_audited_and_all_are_paid(
    flow: Path, amount: int, audit: str, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, {"amount": amount})
    assert ends(view) == {"order": "finished", "audit": audit, "pay": "finished"}


@shows("conditional_sub_flow")
@pytest.mark.parametrize(
    ("item", "insurance"), [("harp", "not insured"), ("violin", "insured for 600.0")]
)
async def test_only_dear_items_are_insured(
    flow: Path, item: str, insurance: str, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, {"item": item})
    assert f" sent, {insurance}" in str(view.result)


@shows("if_else")
@pytest.mark.parametrize(("degrees", "chosen"), [(10, "heat"), (18, "cool")])
async def test_one_of_two_nodes_runs_and_the_report_follows(
    flow: Path, degrees: int, chosen: str, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, {"degrees": degrees})
    assert ran(view) == ["measure", chosen, "report"]


@shows("switch")
@pytest.mark.parametrize("kind", ["letter", "parcel", "pallet"])
async def test_the_node_of_the_value_runs(flow: Path, kind: str, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"kind": kind})
    assert ran(view) == [kind, "bill"]


@shows("success_and_failure_branch")
async def test_a_failed_charge_is_followed_by_an_apology(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert ran(view) == ["charge", "ship", "close"]
    view = await play(flowkit_cluster, flow, charge=fails("card expired"))
    assert (view.status, ran(view)) == ("finished", ["charge", "apologise", "close"])
    assert view.nodes["apologise"].result == "OSError: card expired"


@shows("early_exit")
async def test_a_task_without_rows_ends_at_once(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"rows": 0})
    assert (view.status, view.result) == ("finished", "nothing to do")
    assert "load" not in ran(view)
    view = await play(flowkit_cluster, flow, {"rows": 2})
    assert ran(view) == ["find", "load"]


@shows("run_only_if_changed")
async def test_a_version_that_was_built_is_not_built_again(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert ran(view) == ["version", "build", "publish"]
    view = await play(flowkit_cluster, flow, view.result)
    assert (view.status, ran(view), view.result) == ("finished", ["version"], {"last": "v7"})


@shows("shadow_run")
async def test_a_candidate_is_compared_and_never_used(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"request": 7})
    assert (view.result, view.nodes["compare"].result) == (7, "same")
    view = await play(flowkit_cluster, flow, {"request": 7}, candidate=gives(8))
    assert (view.result, view.nodes["compare"].result) == (7, "different")
    view = await play(flowkit_cluster, flow, {"request": 7}, candidate=fails())
    assert (view.status, view.result, ends(view)["compare"]) == ("finished", 7, "skipped")
