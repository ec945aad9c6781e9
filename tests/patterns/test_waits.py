"""Patterns of waiting, for times, events and people."""

from pathlib import Path

import pytest

from flowkit.errors import SignalRefused, TaskRefused
from flowkit_testing import Cluster
from tests.patterns.support import DAY, HOUR, ends, play, ran, shows, start, starts, took


@shows("delay")
async def test_the_second_mail_is_sent_three_days_later(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert starts(view)["tips"] == 3 * DAY


@shows("start_at_a_time")
async def test_the_article_is_published_at_the_given_time(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"at": "2026-01-03T09:00:00+01:00"})
    assert view.nodes["publish"].started_at.isoformat() == "2026-01-03T08:00:00+00:00"


@shows("callback")
async def test_the_answer_of_another_system_is_used(flow: Path, flowkit_cluster: Cluster):
    run = await start(flowkit_cluster, flow)
    await run.after(2 * HOUR)
    with pytest.raises(SignalRefused, match="url"):
        await run.signal("reply", {"status": "ready"})
    await run.signal("reply", {"url": "https://example.org/7"})
    view = await run.end()
    assert view.nodes["request"].result == {"reply_to": run.task_id}
    assert (view.result, took(view)) == ({"fetch": "https://example.org/7"}, 2 * HOUR)


@shows("poll_in_python")
async def test_a_system_is_asked_each_minute_until_it_is_ready(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow)
    assert view.result == "https://example.org/export-of-paris is stored"
    assert 120 <= took(view) < 180


@shows("timeout_with_fallback")
async def test_without_an_offer_the_standard_price_is_booked(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert (view.status, ran(view), took(view)) == ("finished", ["offer", "standard", "book"], 600)
    run = await start(flowkit_cluster, flow)
    await run.after(60)
    await run.signal("offer", {"price": 80})
    view = await run.end()
    assert (ran(view), view.nodes["take"].result) == (["offer", "take", "book"], 80)


@shows("human_approval")
async def test_a_payment_is_made_to_the_account_of_the_decision(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow, {"amount": 70})
    await run.after(DAY)
    assert await run.prompts() == ["Pay 70 EUR?"]
    with pytest.raises(TaskRefused, match="account"):
        await run.decide("ok", "approve", by="ann")
    await run.decide("ok", "approve", by="ann", account="DE02")
    assert (await run.end()).result == {"pay": "DE02"}
    run = await start(flowkit_cluster, flow, {"amount": 70})
    await run.after(1)
    await run.decide("ok", "reject", by="ann")
    view = await run.end()
    assert (view.status, ran(view)) == ("finished", ["ok", "tell"])


@shows("reminder_and_escalation")
async def test_after_a_reminder_and_a_day_another_person_is_asked(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow)
    await run.after(2.5 * DAY)
    assert await run.prompts() == ["Ann does not answer. Publish?"]
    await run.decide("ask_bob", "approve", by="bob")
    view = await run.end()
    assert starts(view)["remind"] == DAY
    assert starts(view)["escalate"] == 2 * DAY
    assert (view.status, starts(view)["publish"]) == ("finished", 2.5 * DAY)


@shows("reminder_and_escalation")
@pytest.mark.parametrize(("choice", "publish"), [("approve", "finished"), ("reject", "skipped")])
async def test_a_prompt_answer_needs_no_reminder(
    flow: Path, choice: str, publish: str, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow)
    await run.after(HOUR)
    await run.decide("ask", choice, by="ann")
    view = await run.end()
    assert (view.status, view.nodes["publish"].status, took(view)) == ("finished", publish, HOUR)
    assert "remind" not in ran(view)


@shows("two_person_rule")
async def test_the_vault_opens_when_both_have_agreed(flow: Path, flowkit_cluster: Cluster):
    run = await start(flowkit_cluster, flow)
    await run.after(HOUR)
    await run.decide("ann", "approve", by="ann")
    with pytest.raises(TaskRefused, match="bob"):
        await run.decide("bob", "approve", by="ann")
    await run.after(HOUR)
    await run.decide("bob", "approve", by="bob")
    assert starts(await run.end())["open"] == 2 * HOUR


@shows("vote")
async def test_two_votes_decide_and_the_third_is_not_needed(flow: Path, flowkit_cluster: Cluster):
    run = await start(flowkit_cluster, flow)
    await run.after(1)
    await run.decide("ann", "approve", by="ann")
    await run.decide("eve", "approve", by="eve")
    view = await run.end()
    assert ends(view) == {
        "ann": "finished",
        "bob": "cancelled",
        "eve": "finished",
        "merge": "finished",
    }
    assert (view.status, view.result) == ("finished", ["ann", "eve"])


@shows("vote")
async def test_two_rejections_end_a_vote(flow: Path, flowkit_cluster: Cluster):
    run = await start(flowkit_cluster, flow)
    await run.after(1)
    await run.decide("ann", "reject", by="ann")
    await run.decide("bob", "reject", by="bob")
    await run.after(1)
    view = await run.view()
    assert view.nodes["merge"].status == "skipped"


@shows("dead_man_switch")
async def test_silence_raises_an_alarm_and_a_signal_prevents_it(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow)
    assert (view.status, starts(view)["alarm"]) == ("finished", HOUR)
    run = await start(flowkit_cluster, flow)
    await run.after(HOUR - 1)
    await run.signal("alive")
    view = await run.end()
    assert (ends(view)["alarm"], took(view)) == ("skipped", HOUR - 1)


@shows("cancel_window")
async def test_a_mail_can_be_stopped_for_thirty_seconds(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert (view.status, starts(view)["send"], ends(view)["keep"]) == ("finished", 30, "skipped")
    run = await start(flowkit_cluster, flow)
    await run.after(20)
    await run.signal("stop")
    view = await run.end()
    assert (view.status, ran(view), took(view)) == ("finished", ["stop", "keep"], 20)


@shows("collected_signals")
async def test_three_parts_are_assembled_in_the_order_of_their_arrival(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow)
    for part in ("door", "roof", "wheel"):
        await run.after(60)
        await run.signal("part", part)
    view = await run.end()
    assert (view.result, took(view)) == ({"assemble": ["door", "roof", "wheel"]}, 180)


@shows("events_within_a_time")
async def test_after_an_hour_the_answers_that_came_are_used(flow: Path, flowkit_cluster: Cluster):
    run = await start(flowkit_cluster, flow)
    await run.after(60)
    await run.signal("answer", "yes")
    view = await run.end()
    assert (view.result, took(view)) == ({"sum": ["yes"]}, HOUR)
    view = await play(flowkit_cluster, flow)
    assert (view.status, view.result) == ("finished", {"sum": []})


@shows("expiring_reservation")
async def test_a_reservation_is_taken_back_unless_it_is_paid(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert (view.status, took(view)) == ("failed", 900)
    assert ran(view) == ["reserve", "paid", "reserve~undo"]
    run = await start(flowkit_cluster, flow)
    await run.after(60)
    await run.signal("paid")
    view = await run.end()
    assert (view.status, ran(view)) == ("finished", ["reserve", "paid", "ticket"])
