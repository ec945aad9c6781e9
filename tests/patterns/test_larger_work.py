"""Patterns of the organisation of larger work."""

from pathlib import Path

from flowkit_testing import Cluster
from tests.patterns.support import HOUR, ends, play, shows, start


@shows("building_block")
async def test_the_same_steps_run_for_two_tables(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert list(view.nodes) == ["fetch", "check", "load", "fetch_2", "check_2", "load_2"]
    assert view.result == {"orders": 5, "users": 4}


@shows("release_train")
async def test_a_rejected_release_takes_staging_back_and_is_announced(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow)
    await run.after(HOUR)
    assert await run.prompts() == [f"Release {run.task_id}?"]
    await run.decide("go", "reject", by="ann")
    view = await run.end()
    assert (view.status, ends(view)["production"]) == ("failed", "cancelled")
    assert view.nodes["staging~undo"].result == "old version"
    assert view.nodes["announce"].result == "release: failed"
