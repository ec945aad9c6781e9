"""Patterns of time: schedules, windows, limits, stages."""

from pathlib import Path

import pytest

from flowkit_testing import Cluster
from tests.patterns.support import HOUR, ends, fails, gives, play, ran, shows, starts, takes, took


@shows("cron_body")
@pytest.mark.parametrize(("day", "end"), [("2026-01-02", "finished"), ("2026-01-03", "skipped")])
async def test_the_report_of_a_day_is_written_unless_it_is_a_weekend(
    flow: Path, day: str, end: str, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, {"day": day})
    assert (view.status, ends(view)["report"]) == ("finished", end)


@shows("night_window")
async def test_the_migration_begins_at_ten_and_may_take_six_hours(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, {"day": "2026-01-01"}, migrate=takes(7 * HOUR))
    assert view.nodes["migrate"].started_at.isoformat() == "2026-01-01T22:00:00+00:00"
    assert (view.status, view.nodes["migrate"].reason_code) == ("failed", "start_to_close_timeout")
    view = await play(flowkit_cluster, flow, {"day": "2026-01-01"})
    assert (view.status, took(view)) == ("finished", 0)


@shows("warning_when_late")
async def test_a_warning_is_sent_after_an_hour_and_the_work_goes_on(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, work=takes(3 * HOUR))
    assert (view.status, starts(view)["warn"], took(view)) == ("finished", HOUR, 3 * HOUR)
    view = await play(flowkit_cluster, flow, work=takes(60))
    assert (view.status, took(view), "warn" in ran(view)) == ("finished", 60, False)


@shows("canary")
@pytest.mark.parametrize(("percent", "then"), [(0.2, "roll_out"), (3, "roll_back")])
async def test_errors_of_half_an_hour_decide_about_the_new_version(
    flow: Path, percent: float, then: str, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, errors=gives({"percent": percent}))
    assert ran(view) == ["canary", "bake", "errors", then]
    assert starts(view)[then] == 1800


@shows("gradual_rollout")
async def test_a_failed_check_takes_the_steps_back(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert (view.status, starts(view)["all"]) == ("finished", 2 * HOUR)
    view = await play(flowkit_cluster, flow, check_again=fails("too many errors"))
    assert (view.status, ends(view)["all"]) == ("failed", "cancelled")
    assert view.nodes["tenth~undo"].result == {"percent": 0}


@shows("time_budget")
async def test_there_is_an_answer_at_the_deadline_in_any_case(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, rank=gives("a"))
    assert view.nodes["answer"].result == "a"
    view = await play(flowkit_cluster, flow, rank=takes(HOUR))
    assert (view.status, view.nodes["answer"].result) == ("failed", "no answer")
    assert took(view) == 600


@shows("timed_out_step")
async def test_a_conversion_that_hangs_is_tried_once_more(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, convert=takes(HOUR))
    assert (view.status, view.nodes["convert"].attempt, took(view)) == ("failed", 2, 120)
    assert view.nodes["convert"].reason_code == "start_to_close_timeout"
