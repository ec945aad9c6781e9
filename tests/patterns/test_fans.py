"""Patterns of fan-out and fan-in."""

from pathlib import Path

from flowkit_testing import Cluster
from tests.patterns.support import fails, gives, play, shows, starts, takes, took


@shows("scatter_and_gather")
async def test_checks_run_at_the_same_time_and_their_results_meet(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, stock=takes(3), credit=takes(5))
    assert starts(view) == {"order": 0, "stock": 0, "credit": 0, "accept": 5}
    assert view.result == {"accept": ["stock", "credit"]}


@shows("first_of_n")
async def test_the_first_answer_counts_and_the_others_are_cancelled(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, north=takes(9), south=takes(2, 1.5), east=takes(7))
    assert (view.result, took(view)) == (150.0, 2)
    assert (view.nodes["north"].status, view.nodes["east"].reason_code) == (
        "cancelled",
        "not_needed",
    )


@shows("quorum")
async def test_two_of_three_copies_confirm_a_write(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, a=takes(1), b=takes(2), c=takes(30))
    assert starts(view)["confirm"] == 2
    assert (view.status, took(view)) == ("finished", 30)


@shows("quorum")
async def test_one_failed_copy_lets_the_quorum_confirm_and_the_task_still_fails(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, b=fails("disk full"))
    assert (view.status, view.nodes["confirm"].status) == ("failed", "finished")


@shows("all_ended")
async def test_the_report_names_what_has_failed(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, south=fails())
    assert view.status == "failed"
    assert view.result == {"report": {"north": "north", "south_failed": True}}


@shows("optional_enrichment")
async def test_the_invoice_has_the_discount_or_goes_without(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, discount=gives({"percent": 10}))
    assert view.result == {"invoice": {"percent": 10}}
    view = await play(flowkit_cluster, flow, discount=fails())
    assert (view.status, view.result) == ("finished", {"invoice": {"percent": 0}})


@shows("bounded_parallelism")
async def test_at_most_two_run_and_the_urgent_one_is_first(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, **dict.fromkeys(("a", "b", "c", "urgent"), takes(10)))
    assert starts(view) == {"urgent": 0, "a": 0, "b": 10, "c": 10}


@shows("one_at_a_time")
async def test_nodes_of_one_key_take_turns(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, debit=takes(4), credit=takes(4), mail=takes(4))
    assert starts(view) == {"read": 0, "debit": 0, "mail": 0, "credit": 4}


@shows("merged_results")
async def test_two_objects_become_one(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert view.result == {"publish": {"price": 20, "stock": 3}}
    assert view.vars == {"product": {"price": 20, "stock": 3}}


@shows("barrier_between_stages")
async def test_no_index_begins_before_the_last_copy_ends(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, copy_a=takes(1), copy_b=takes(8))
    assert (starts(view)["index_a"], starts(view)["index_b"]) == (8, 8)


@shows("known_fan_out")
async def test_one_node_for_each_item_of_a_list_in_the_source(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert list(view.nodes) == ["paris", "rome", "oslo", "total"]
    assert view.result == 13.0
