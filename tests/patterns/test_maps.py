"""Patterns that run a node once for each item of a list."""

from pathlib import Path
from typing import Any

import pytest

from flowkit.worker import RunContext
from flowkit_testing import Cluster
from tests.patterns.support import Step, ends, fails, play, ran, shows, starts, takes, took


def slow_for(name: str) -> Step:
    """Return a step that takes a minute for this item, and returns its input."""

    async def step(item: Any, ctx: RunContext) -> Any:
        if str(item).endswith(name):
            await ctx.cancellable(ctx.clock.sleep(60))
        return item

    return step


def fails_for(name: str) -> Step:
    """Return a step that fails for this item, and returns its input otherwise."""

    async def step(item: Any, ctx: RunContext) -> Any:
        if str(item).endswith(name):
            raise ValueError("damaged")
        return item

    return step


@shows("fan_out_over_a_result")
async def test_each_shop_is_read_two_at_a_time(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, sales=takes(10))
    assert (starts(view)["sales[1]"], starts(view)["sales[2]"], took(view)) == (0, 10, 20)
    assert view.result == {"report": ["sales of paris", "sales of rome", "sales of oslo"]}


@shows("map_reduce")
async def test_the_words_of_all_lines_are_counted(flow: Path, flowkit_cluster: Cluster):
    lines = ["so it goes", "so", "it goes on and on"]
    view = await play(flowkit_cluster, flow, {"lines": lines})
    assert (view.nodes["count"].result, view.result) == ([3, 1, 5], {"sum": 9})
    assert (await play(flowkit_cluster, flow, {"lines": []})).result == {"sum": 0}


@shows("map_that_skips_failures")
async def test_pages_that_cannot_be_fetched_are_left_out(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"urls": ["a", "b", "c"]}, **{"fetch[1]": fails()})
    assert (view.status, view.result) == ("finished", {"found": ["a", "c"]})
    (letter,) = (await flowkit_cluster.client.dead_letters(task_id=view.id)).items
    assert letter.node_id == "fetch[1]"


@shows("filtered_map")
async def test_only_pictures_get_a_thumbnail(flow: Path, flowkit_cluster: Cluster):
    assert (await play(flowkit_cluster, flow)).result == {"thumbnails": ["a.jpg", "c.jpg"]}


@shows("map_over_artifacts")
async def test_a_page_is_scanned_while_others_are_awaited(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, scan=takes(0.01))
    assert view.result == {"bind": [f"scan of page {number}" for number in range(3)]}
    assert starts(view)["scan[0]"] < starts(view)["scan[1]"] < starts(view)["scan[2]"]


@shows("maps_in_a_row")
async def test_all_files_are_parsed_before_one_is_loaded(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"files": ["a", "b"]}, **{"parse[1]": takes(5)})
    assert view.result == {"load": ["loaded 0: parsed a", "loaded 1: parsed b"]}
    assert (starts(view)["load[0]"], starts(view)["load[1]"]) == (5, 5)


@shows("matrix")
@pytest.mark.parametrize("broken", [False, True])
async def test_a_release_needs_the_success_of_every_job(
    flow: Path, broken: bool, flowkit_cluster: Cluster
):
    steps = {"test[1]": fails()} if broken else {}
    view = await play(flowkit_cluster, flow, **steps)
    assert ends(view)["release"] == ("skipped" if broken else "finished")
    assert {"test[0]", "test[1]", "test[2]"} <= set(ran(view))


@shows("pipeline_per_file")
async def test_the_steps_of_a_file_do_not_wait_for_the_other_files(
    flow: Path, flowkit_cluster: Cluster
):
    files = {"files": ["a", "b", "c", "d"]}
    view = await play(flowkit_cluster, flow, files, parse=slow_for("b"), load=fails_for("c"))
    assert view.result == {
        "report": ["loaded parsed a", "loaded parsed b", None, "loaded parsed d"]
    }
    assert (starts(view)["each[3]"], took(view)) == (0, 60)


@shows("nested_map")
async def test_each_order_of_each_shop_is_shipped(flow: Path, flowkit_cluster: Cluster):
    shops = [
        {"name": "paris", "orders": [1, 2]},
        {"name": "rome", "orders": []},
        {"name": "oslo", "orders": [3]},
    ]
    view = await play(flowkit_cluster, flow, {"shops": shops})
    assert view.result == {"shops": [["1 of paris", "2 of paris"], [], ["3 of oslo"]]}
    tasks = (await flowkit_cluster.client.list_tasks()).items
    assert len(tasks) == 4
