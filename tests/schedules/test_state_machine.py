"""The state machine of schedules: pure, a step at a time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flowkit._json.limits import is_moment
from flowkit._schedules import (
    CLAIM_SEC,
    Entry,
    Rules,
    Schedule,
    ScheduleState,
    Step,
    advance_schedule,
    backfilled,
    new_state,
    next_times,
    paused,
    redefined,
    resumed,
    started,
    task_id_of,
    triggered,
    wake_at,
)
from flowkit._schedules._schedule import LONGEST_JITTER_SEC
from flowkit.errors import ScheduleRefused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
CHECK_SEC = 5.0


def hourly(**fields: Any) -> Schedule:
    return Schedule("s", graph={}, cron="0 * * * *", **fields)


def at_times(**fields: Any) -> Schedule:
    return Schedule("s", graph={}, **fields)


def hours(times: Sequence[float]) -> list[float]:
    return [(at - NOON) / HOUR for at in times]


def state_of(schedule: Schedule, at: float = NOON) -> ScheduleState:
    return new_state("hash", schedule, at)


def step(
    schedule: Schedule, state: ScheduleState, now: float, running: tuple[str, ...] = ()
) -> Step:
    return advance_schedule(Rules.of(schedule), state, now, running)


def done(schedule: Schedule, made: Step) -> ScheduleState:
    """Return the state after the tasks of a step were made."""
    return started(Rules.of(schedule), made.state, dict.fromkeys(made.start))


def task(at: float) -> str:
    return task_id_of("s", at)


def skips(state: ScheduleState) -> list[tuple[float, float, int, str | None]]:
    return [
        ((one.first - NOON) / HOUR, (one.last - NOON) / HOUR, one.count, one.skipped)
        for one in state.history
        if one.skipped is not None
    ]


def test_the_time_at_which_a_schedule_is_put_is_not_one_of_its_times() -> None:
    schedule = hourly()
    state = state_of(schedule)
    assert wake_at(Rules.of(schedule), state, NOON, CHECK_SEC) == NOON + HOUR
    assert step(schedule, state, NOON + HOUR - 1).start == ()
    assert step(schedule, state, NOON + HOUR).start == (NOON + HOUR,)


def test_tasks_are_made_again_until_it_is_confirmed_that_they_are_made() -> None:
    schedule = hourly()
    first = step(schedule, state_of(schedule), NOON + HOUR)
    rules = Rules.of(schedule)
    assert wake_at(rules, first.state, NOON + HOUR, CHECK_SEC) == NOON + HOUR + CLAIM_SEC
    again = step(schedule, first.state, NOON + HOUR + CLAIM_SEC)
    assert (again.start, again.state) == (first.start, first.state)
    confirmed = done(schedule, again)
    assert step(schedule, confirmed, NOON + HOUR + CLAIM_SEC).start == ()
    assert confirmed.history == (Entry(NOON + HOUR, NOON + HOUR),)
    assert wake_at(rules, confirmed, NOON + HOUR, CHECK_SEC) == NOON + 2 * HOUR


def test_a_clock_that_is_set_back_makes_no_time_again() -> None:
    schedule = hourly(overlap="allow")
    state = done(schedule, step(schedule, state_of(schedule), NOON + 3 * HOUR))
    assert step(schedule, state, NOON + HOUR).start == ()
    assert step(schedule, state, NOON + 4 * HOUR).start == (NOON + 4 * HOUR,)


# ---------------------------------------------------------------- overlap


def running_one(schedule: Schedule) -> tuple[ScheduleState, tuple[str, ...]]:
    """Return a state whose task of 13:00 runs."""
    return done(schedule, step(schedule, state_of(schedule), NOON + HOUR)), (task(NOON + HOUR),)


def test_skip_makes_no_task_while_another_runs() -> None:
    schedule = hourly()
    state, running = running_one(schedule)
    made = step(schedule, state, NOON + 2 * HOUR, running)
    assert (made.start, skips(made.state)) == ((), [(2, 2, 1, "overlap")])
    assert step(schedule, made.state, NOON + 3 * HOUR).start == (NOON + 3 * HOUR,)


def test_queue_makes_the_tasks_one_after_another_in_order() -> None:
    schedule = hourly(overlap="queue")
    state, running = running_one(schedule)
    for hour in (2, 3):
        state = step(schedule, state, NOON + hour * HOUR, running).state
    rules = Rules.of(schedule)
    assert state.waiting == (NOON + 2 * HOUR, NOON + 3 * HOUR)
    now = NOON + 3.5 * HOUR
    assert wake_at(rules, state, now, CHECK_SEC) == now + CHECK_SEC
    second = step(schedule, state, now)
    assert second.start == (NOON + 2 * HOUR,)
    state = done(schedule, second)
    third = step(schedule, state, now + 1)
    assert (third.start, third.state.waiting) == ((NOON + 3 * HOUR,), ())


def test_a_full_queue_skips_times() -> None:
    schedule = hourly(overlap="queue")
    state, running = running_one(schedule)
    state = replace(state, waiting=tuple(NOON + number for number in range(1000)))
    made = step(schedule, state, NOON + 2 * HOUR, running)
    assert (len(made.state.waiting), skips(made.state)) == (1000, [(2, 2, 1, "queue_full")])


def test_allow_makes_every_task_at_its_time() -> None:
    schedule = hourly(overlap="allow")
    state, running = running_one(schedule)
    made = step(schedule, state, NOON + 2 * HOUR, running)
    assert (made.start, made.state.open) == ((NOON + 2 * HOUR,), ())


def test_cancel_running_cancels_the_other_task_and_waits_for_its_end() -> None:
    schedule = hourly(overlap="cancel_running")
    state, running = running_one(schedule)
    made = step(schedule, state, NOON + 2 * HOUR, running)
    assert (made.start, made.cancel) == ((), running)
    later = step(schedule, made.state, NOON + 3 * HOUR, running)
    assert (later.cancel, skips(later.state)) == (running, [(2, 2, 1, "overlap")])
    assert step(schedule, later.state, NOON + 3 * HOUR + 1).start == (NOON + 3 * HOUR,)


# ---------------------------------------------------------------- missed times


@pytest.mark.parametrize(
    ("fields", "hours", "skipped"),
    [
        ({"catch_up": "all"}, [1, 2, 3, 4], []),
        ({"catch_up": "latest"}, [4], [(1, 3, 3, "catch_up")]),
        ({"catch_up": "none"}, [], [(1, 4, 4, "catch_up")]),
        (
            {"catch_up": "all", "catch_up_window_sec": 2 * HOUR},
            [3, 4],
            [(1, 2, 2, "catch_up_window")],
        ),
        (
            {"catch_up": "latest", "catch_up_window_sec": HOUR / 4},
            [],
            [(1, 4, 4, "catch_up_window")],
        ),
    ],
)
def test_missed_times_follow_the_catch_up_rule_once(
    fields: dict[str, Any], hours: list[int], skipped: list[Any]
) -> None:
    schedule = hourly(overlap="allow", **fields)
    made = step(schedule, state_of(schedule), NOON + 4.5 * HOUR)
    assert [(at - NOON) / HOUR for at in made.start] == hours
    assert skips(made.state) == skipped
    state = done(schedule, made)
    assert step(schedule, state, NOON + 4.6 * HOUR).start == ()
    assert step(schedule, state, NOON + 5 * HOUR).start == (NOON + 5 * HOUR,)


def test_a_time_that_is_a_little_late_was_not_missed() -> None:
    schedule = Schedule("s", graph={}, every_sec=10, catch_up="none", overlap="allow")
    made = step(schedule, state_of(schedule), NOON + 25)
    assert made.start == (NOON + 10, NOON + 20)


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow", "cancel_running"])
@pytest.mark.parametrize("outage_sec", [50, 509, 515, 2_000])
def test_after_an_outage_only_the_latest_time_that_is_due_makes_a_task(
    overlap: str, outage_sec: int
) -> None:
    schedule = at_times(every_sec=1, overlap=overlap)
    state, now, started_ = state_of(schedule), NOON + outage_sec, []
    while state.handled < now:
        made = step(schedule, state, now)
        started_ += made.start
        state = done(schedule, made)
    assert started_ == [now]
    assert [(one.first, one.last, one.skipped) for one in state.history] == [
        (NOON + 1, now - 1, "catch_up"),
        (now, now, None),
    ]
    assert step(schedule, state, now + 1).start == (now + 1,)


def test_a_short_restart_after_an_outage_skips_no_time() -> None:
    schedule = at_times(every_sec=10, overlap="allow")
    state = done(schedule, step(schedule, state_of(schedule), NOON + 60))
    assert step(schedule, state, NOON + 90).start == (NOON + 70, NOON + 80, NOON + 90)


@pytest.mark.parametrize(
    ("catch_up", "made"), [("all", [10, 20, 30, 40, 50, 60]), ("none", [30, 40, 50, 60])]
)
def test_other_rules_make_tasks_for_times_that_were_not_missed(
    catch_up: str, made: list[int]
) -> None:
    schedule = at_times(every_sec=10, overlap="allow", catch_up=catch_up)
    after = step(schedule, state_of(schedule), NOON + 60)
    assert [at - NOON for at in after.start] == made


def test_the_latest_time_is_the_one_before_a_pause_if_all_later_ones_are_in_it() -> None:
    schedule = hourly()
    state = resumed(paused(state_of(schedule), NOON + 2.5 * HOUR), NOON + 4.5 * HOUR)
    made = step(schedule, state, NOON + 4.6 * HOUR)
    assert made.start == (NOON + 2 * HOUR,)
    assert skips(made.state) == [(1, 1, 1, "catch_up"), (3, 4, 2, "paused")]


def test_a_pause_in_an_outage_does_not_end_the_catch_up() -> None:
    schedule = at_times(every_sec=10, overlap="allow")
    state = resumed(paused(state_of(schedule), NOON + 15), NOON + 45)
    assert step(schedule, state, NOON + 75).start == (NOON + 70,)


def test_a_long_outage_is_worked_off_in_steps() -> None:
    schedule = Schedule("s", graph={}, every_sec=1)
    state, now, steps = state_of(schedule), NOON + 10_000.5, 0
    rules = Rules.of(schedule)
    while wake_at(rules, state, now, CHECK_SEC) != NOON + 10_001:
        made = step(schedule, state, now)
        state, steps = done(schedule, made), steps + 1
    assert (steps, state.handled) == (20, NOON + 10_000)
    assert sum(one.count for one in state.history) == 10_000


def test_missed_times_wait_for_each_other_if_tasks_queue() -> None:
    schedule = hourly(overlap="queue", catch_up="all")
    made = step(schedule, state_of(schedule), NOON + 3.5 * HOUR)
    assert (made.start, made.state.waiting) == (
        (NOON + HOUR,),
        (NOON + 2 * HOUR, NOON + 3 * HOUR),
    )


# ---------------------------------------------------------------- bounds, jitter, pauses


def test_a_schedule_ends_after_its_last_time() -> None:
    schedule = hourly(end_at=datetime(2026, 1, 1, 13, tzinfo=UTC))
    state = done(schedule, step(schedule, state_of(schedule), NOON + HOUR))
    assert state.history
    assert wake_at(Rules.of(schedule), state, NOON + HOUR, CHECK_SEC) is None


def test_intervals_count_from_the_start_else_from_1970() -> None:
    aligned = Schedule("s", graph={}, every_sec=7)
    anchored = Schedule(
        "s", graph={}, every_sec=7, start_at=datetime(2026, 1, 1, 12, 0, 3, tzinfo=UTC)
    )
    first = Rules.of(aligned).times.after(NOON)
    assert first is not None
    assert (first % 7, 0 < first - NOON <= 7) == (0, True)
    assert Rules.of(anchored).times.after(NOON) == NOON + 3
    assert Rules.of(anchored).times.after(NOON + 3) == NOON + 10


def test_intervals_of_parts_of_seconds_do_not_drift() -> None:
    times = Rules.of(Schedule("s", graph={}, every_sec=1.1)).times
    at, found = NOON, []
    for _ in range(10_000):
        following = times.after(at)
        assert following is not None
        found.append(following)
        at = following
    assert len(set(found)) == 10_000
    assert found[-1] - found[0] == pytest.approx(9_999 * 1.1, abs=1e-6)


def test_jitter_delays_each_time_by_the_same_amount_in_every_process() -> None:
    schedule = hourly(jitter_sec=600)
    rules, state = Rules.of(schedule), state_of(schedule)
    times = [NOON + hour * HOUR for hour in range(50)]
    delays = [rules.start_of(state, at) - at for at in times]
    same = Rules.of(hourly(jitter_sec=600))
    assert delays == [same.start_of(state, at) - at for at in times]
    assert all(0 <= delay < 600 for delay in delays)
    assert len(set(delays)) == 50
    due = rules.start_of(state, NOON + HOUR)
    assert wake_at(rules, state, NOON, CHECK_SEC) == due
    assert step(schedule, state, due - 0.001).start == ()
    assert step(schedule, state, due).start == (NOON + HOUR,)


def test_times_during_a_pause_are_not_caught_up_but_those_before_it_are() -> None:
    schedule = hourly(catch_up="all", overlap="allow")
    state = paused(state_of(schedule), NOON + 1.5 * HOUR)
    held = step(schedule, state, NOON + 2.5 * HOUR)
    assert held.start == (NOON + HOUR,)
    assert wake_at(Rules.of(schedule), done(schedule, held), NOON + 2.5 * HOUR, CHECK_SEC) is None
    state = resumed(state, NOON + 3.5 * HOUR)
    made = step(schedule, state, NOON + 4.5 * HOUR)
    assert made.start == (NOON + HOUR, NOON + 4 * HOUR)
    assert skips(made.state) == [(2, 3, 2, "paused")]
    assert made.state.pauses == ()


# ---------------------------------------------------------------- requests


def test_a_schedule_that_is_put_again_keeps_its_past_and_its_pause() -> None:
    schedule = hourly()
    state = paused(done(schedule, step(schedule, state_of(schedule), NOON + HOUR)), NOON + HOUR)
    again = redefined(state, "other", schedule, hourly(params={"a": 1}), NOON + 2 * HOUR)
    assert again == replace(state, definition="other")
    resumed_ = redefined(state, "other", schedule, hourly(paused=False), NOON + 2.5 * HOUR)
    assert resumed_.paused_at is None


def put_again(
    old: Schedule, new: Schedule, state: ScheduleState, at: float = NOON + 2.5 * HOUR
) -> ScheduleState:
    return redefined(state, "other", old, new, at)


def test_other_times_count_from_when_they_are_put_and_earlier_ones_stay_due() -> None:
    old, new = hourly(), at_times(cron="*/15 * * * *", catch_up="all", overlap="allow")
    state = put_again(old, new, state_of(old))
    made = step(new, state, NOON + 2.75 * HOUR)
    assert hours(made.start) == [1, 2, 2.75]
    assert (skips(made.state), made.state.earlier) == ([], ())
    assert hours(step(new, done(new, made), NOON + 3 * HOUR).start) == [3]
    handled = replace(state_of(old), handled=NOON + 2 * HOUR)
    assert hours(step(new, put_again(old, new, handled), NOON + 2.75 * HOUR).start) == [2.75]
    ahead = replace(state_of(old), handled=NOON + 3 * HOUR)
    assert hours(step(new, put_again(old, new, ahead), NOON + 3.25 * HOUR).start) == [3.25]


def test_times_that_change_twice_before_they_are_handled_are_all_kept() -> None:
    first, second, third = (
        at_times(cron=f"{minute} * * * *", catch_up="all", overlap="allow")
        for minute in (0, 20, 40)
    )
    state = put_again(first, second, state_of(first), NOON + 1.5 * HOUR)
    state = put_again(second, third, state, NOON + 2.5 * HOUR)
    # A client whose clock is behind changes nothing about them.
    state = put_again(third, first, state, NOON + 2.4 * HOUR)
    made = step(first, state, NOON + 3 * HOUR)
    assert hours(made.start) == pytest.approx([1, 2 + 1 / 3, 3])


def test_missed_times_are_caught_up_although_the_schedule_has_got_an_end() -> None:
    old = hourly(catch_up="all", overlap="allow")
    new = hourly(catch_up="all", overlap="allow", end_at=datetime(2026, 1, 1, 15, tzinfo=UTC))
    made = step(new, put_again(old, new, state_of(old)), NOON + 4.5 * HOUR)
    assert hours(made.start) == [1, 2, 3]


def test_times_of_a_pause_are_skipped_as_paused_although_the_times_have_changed() -> None:
    old, new = Schedule("s", graph={}, every_sec=5), hourly(paused=False)
    state = put_again(old, new, paused(state_of(old), NOON + 2), NOON + 1.5 * HOUR)
    made, steps = step(new, state, NOON + 2 * HOUR), 1
    while not made.start:
        made, steps = step(new, made.state, NOON + 2 * HOUR), steps + 1
    assert steps == 3
    assert hours(made.start) == [2]
    assert skips(made.state) == [(5 / HOUR, 1.5, 1080, "paused")]


@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_less_jitter_makes_a_time_that_waits_for_its_jitter_at_once(catch_up: str) -> None:
    old, new = hourly(jitter_sec=HOUR, catch_up=catch_up), hourly(catch_up=catch_up)
    due = Rules.of(old).start_of(state_of(old), NOON + HOUR)
    at = due - 60
    assert at > NOON + HOUR + 60
    state = put_again(old, new, state_of(old), at)
    assert wake_at(Rules.of(new), state, at, CHECK_SEC) == at
    assert hours(step(new, state, at).start) == [1]
    more = hourly(jitter_sec=24 * HOUR, catch_up=catch_up)
    assert hours(step(more, put_again(old, more, state_of(old), at), due).start) == [1]


def test_a_schedule_that_allowed_overlaps_knows_the_tasks_that_run() -> None:
    old, new = hourly(overlap="allow"), hourly()
    state, running = running_one(old)
    state, _ = triggered(Rules.of(old), state, "one", NOON + 1.5 * HOUR)
    state = put_again(old, new, state, NOON + 1.6 * HOUR)
    assert state.open == (*running, task(NOON + 1.5 * HOUR))
    made = step(new, state, NOON + 2 * HOUR, running)
    assert (hours(made.start), skips(made.state)) == ([1.5], [(2, 2, 1, "overlap")])


@pytest.mark.parametrize(
    ("overlap", "begun", "waiting"), [("allow", [2, 3], []), ("cancel_running", [], [3])]
)
def test_times_that_wait_follow_a_new_rule_for_overlaps(
    overlap: str, begun: list[int], waiting: list[int]
) -> None:
    old, new = hourly(overlap="queue", catch_up="all"), hourly(overlap=overlap)
    state, running = running_one(old)
    state = step(old, state, NOON + 3 * HOUR, running).state
    made = step(new, put_again(old, new, state, NOON + 3 * HOUR), NOON + 3.5 * HOUR, running)
    assert (hours(made.start), hours(made.state.waiting)) == (begun, waiting)


def test_a_schedule_gets_no_times_that_are_all_past() -> None:
    past = datetime(2026, 1, 1, 14, tzinfo=UTC)
    old = hourly()
    for new in (hourly(end_at=past), Schedule("s", graph={}, at=past)):
        with pytest.raises(ScheduleRefused, match="no nominal time in the future; give a later"):
            put_again(old, new, state_of(old))
        assert put_again(new, new, state_of(new)).handled == NOON


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"cron": "@yearly", "start_at": "9999-06-01T00:00:00Z"}, "an earlier start_at"),
        (
            {
                "cron": "@yearly",
                "start_at": "9999-06-01T00:00:00Z",
                "end_at": "9999-12-29T23:59:59Z",
            },
            "an earlier start_at",
        ),
        (
            {
                "cron": "@yearly",
                "start_at": "2030-06-01T00:00:00Z",
                "end_at": "2030-12-01T00:00:00Z",
            },
            "a later end_at",
        ),
        ({"cron": "@yearly", "end_at": "2025-12-01T00:00:00Z"}, "a later end_at"),
        ({"at": "2025-12-01T00:00:00Z"}, "a later at"),
    ],
)
def test_a_schedule_without_times_is_refused_with_the_field_to_change(
    fields: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ScheduleRefused, match=f"no nominal time in the future; give {advice}$"):
        state_of(at_times(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "9999-12-29T23:59:59Z"},
        {"cron": "* * * * *", "start_at": "9999-12-29T23:59:00Z"},
        {"cron": "59 13 30 12 *", "start_at": "9999-12-01T00:00:00Z"},
        {"every_sec": 60, "start_at": "9999-12-29T23:59:00Z"},
    ],
)
def test_the_last_time_of_all_runs_in_each_zone_with_the_longest_jitter(
    fields: dict[str, Any],
) -> None:
    zone = {"timezone": "Pacific/Kiritimati"} if "cron" in fields else {}
    schedule = at_times(jitter_sec=LONGEST_JITTER_SEC, **zone, **fields)
    state = state_of(schedule)
    due = wake_at(Rules.of(schedule), state, NOON, CHECK_SEC)
    assert due is not None
    assert is_moment(due)
    (last,) = next_times(schedule, datetime.fromtimestamp(NOON, UTC), 2)
    assert last.astimezone(UTC).isoformat()[:16] == "9999-12-29T23:59"
    assert step(schedule, state, due).start == (last.timestamp(),)


def test_times_that_change_again_and_again_are_refused_while_none_is_handled() -> None:
    old, new = hourly(), at_times(cron="30 * * * *")
    state, hour = state_of(old), 1.75
    for _ in range(50):
        state = put_again(old, new, state, NOON + hour * HOUR)
        state = put_again(new, old, state, NOON + (hour + 1) * HOUR)
        hour += 2
    with pytest.raises(ScheduleRefused, match="have changed 100 times"):
        put_again(old, new, state, NOON + hour * HOUR)


def test_a_trigger_makes_a_task_of_its_own_also_at_a_nominal_time() -> None:
    schedule = hourly()
    rules = Rules.of(schedule)
    state, first = triggered(rules, state_of(schedule), "one", NOON + HOUR)
    state, second = triggered(rules, state, "two", NOON + HOUR)
    assert triggered(rules, state, "one", NOON + 2 * HOUR) == (state, first)
    made = step(schedule, state, NOON + HOUR)
    assert (first, second) == (NOON + HOUR + 1e-6, NOON + HOUR + 2e-6)
    assert made.start == (first, second)
    assert skips(made.state) == [(1, 1, 1, "overlap")]


def test_a_backfill_makes_its_tasks_a_few_at_a_time() -> None:
    schedule = hourly(paused=True)
    rules = Rules.of(schedule)
    start, end = NOON - 5 * HOUR, NOON - HOUR
    state, times = backfilled(rules, state_of(schedule), start, end, 2, NOON)
    assert [(at - NOON) / HOUR for at in times] == [-5, -4, -3, -2, -1]
    assert backfilled(rules, state, start, end, 2, NOON) == (state, times)
    first = step(schedule, state, NOON)
    assert first.start == tuple(times[:2])
    second = step(schedule, done(schedule, first), NOON, (task(times[1]),))
    assert second.start == (times[2],)
    third = step(schedule, done(schedule, second), NOON)
    assert third.start == tuple(times[3:])
    assert step(schedule, done(schedule, third), NOON).state.backfills == ()


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (NOON, NOON - 1, "before its start"),
        (NOON, NOON + 1, "in the future"),
        (NOON - 1e8, NOON, "more than 10,000"),
    ],
)
def test_a_span_that_cannot_be_backfilled_is_refused(start: float, end: float, why: str) -> None:
    schedule = hourly()
    with pytest.raises(ScheduleRefused, match=why):
        backfilled(Rules.of(schedule), state_of(schedule), start, end, 2, NOON)


def test_a_refused_task_does_not_hold_up_the_next_one() -> None:
    schedule = hourly()
    made = step(schedule, state_of(schedule), NOON + HOUR)
    refused = Entry(NOON + HOUR, NOON + HOUR, error="no")
    state = started(Rules.of(schedule), made.state, {NOON + HOUR: refused})
    assert state.history == (refused,)
    assert step(schedule, state, NOON + 2 * HOUR).start == (NOON + 2 * HOUR,)
