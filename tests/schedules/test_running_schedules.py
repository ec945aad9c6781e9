"""Schedules on a cluster in virtual time."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from flowkit import GraphError, Schedule, ScheduleNotFound, ScheduleRefused, TaskRefused, hookimpl
from flowkit.client import _schedules
from flowkit.errors import CorruptRecord, FlowNotFound, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import TaskView
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node

START = "2026-01-01T"
"""The clock of a cluster begins at midnight."""


@handler("work")
async def work(item: Any, ctx: Any) -> Any:
    await ctx.clock.sleep(item.get("takes", 1))
    return item


def flow(**item: Any) -> dict[str, Any]:
    return graph(node("a", io={"input_inline": {"day": "${params.day}", **item}}))


def every_minute(schedule_id: str = "s", **fields: Any) -> Schedule:
    fields = {"graph": flow(), "params": {"day": "${schedule.at}"}, **fields}
    return Schedule(schedule_id, cron="* * * * *", **fields)


async def tasks(cluster: Cluster) -> list[TaskView]:
    """Return all tasks, the oldest first."""
    page = await cluster.client.list_tasks(limit=500)
    return sorted(page.items, key=lambda task: task.id)


async def test_each_nominal_time_makes_one_task_of_its_id_with_its_time_in_the_params() -> None:
    async with Cluster(coordinators=3, handlers=[work]) as cluster:
        put = await cluster.client.put_schedule(every_minute())
        await cluster.clock.sleep(150)
        made = await tasks(cluster)
        view = await cluster.client.get_schedule("s")
    assert put.next_at is not None
    assert put.next_at.isoformat() == f"{START}00:01:00+00:00"
    assert [one.id for one in made] == [f"s@{START}00:01:00Z", f"s@{START}00:02:00Z"]
    assert [one.result["a"] for one in made] == [
        {"day": f"{START}00:01:00Z"},
        {"day": f"{START}00:02:00Z"},
    ]
    assert {one.schedule for one in made} == {"s"}
    assert [(one.kind, one.task_id) for one in view.history] == [
        ("started", one.id) for one in made
    ]


async def test_a_task_is_made_at_its_time_although_sweeps_are_a_day_apart() -> None:
    async with Cluster(coordinators=2, handlers=[work]) as cluster:
        await cluster.client.put_schedule(every_minute())
        await cluster.clock.sleep(61)
        (made,) = await tasks(cluster)
    assert made.schedule_at is not None
    assert made.created_at - made.schedule_at < timedelta(seconds=0.1)


async def test_the_queued_task_begins_when_the_one_before_it_has_ended() -> None:
    async with Cluster(coordinators=2, handlers=[work]) as cluster:
        await cluster.client.put_schedule(
            every_minute(
                graph=flow(takes=150),
                overlap="queue",
                end_at="2026-01-01T00:03:00Z",
            )
        )
        await cluster.clock.sleep(600)
        made = await tasks(cluster)
    begins = [(one.started_at - made[0].started_at).total_seconds() for one in made]  # type: ignore[operator]
    assert begins == pytest.approx([0, 150, 300], abs=0.5)


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_a_task_that_has_ended_is_no_open_task_of_its_schedule(overlap: str) -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_schedule(every_minute(graph=flow(takes=20), overlap=overlap))
        await cluster.clock.sleep(61)
        during = [await client.get_schedule("s"), *await client.list_schedules()]
        (made,) = await tasks(cluster)
        await client.wait(made.id)
        again = every_minute(graph=flow(takes=20), overlap=overlap)
        after = [
            await client.get_schedule("s"),
            *await client.list_schedules(),
            await client.put_schedule(again),
        ]
    assert [view.open_tasks for view in during] == [[made.id]] * 2
    assert [view.open_tasks for view in after] == [[]] * 3


async def test_the_next_time_cancels_the_task_that_runs() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_schedule(
            every_minute(
                graph=flow(takes=90), overlap="cancel_running", end_at="2026-01-01T00:02:00Z"
            )
        )
        await cluster.clock.sleep(300)
        first, second = await tasks(cluster)
    assert (first.status, first.error) == ("cancelled", "the next time of its schedule has come")
    assert second.status == "finished"
    assert first.finished_at is not None
    assert second.created_at >= first.finished_at


async def test_coordinators_that_were_down_catch_up_the_latest_time_only() -> None:
    async with Cluster(coordinators=0, handlers=[work]) as cluster:
        await cluster.client.put_schedule(every_minute())
        await cluster.clock.sleep(10.75 * 60)
        await cluster.add_coordinator()
        await cluster.clock.sleep(10)
        (made,) = await tasks(cluster)
        view = await cluster.client.get_schedule("s")
    assert made.id == f"s@{START}00:10:00Z"
    assert [(one.kind, one.count, one.reason) for one in view.history] == [
        ("skipped", 9, "catch_up"),
        ("started", 1, None),
    ]


async def test_a_pause_makes_no_tasks_but_a_trigger_does() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_schedule(every_minute(paused=True))
        await cluster.clock.sleep(100)
        triggered = [await client.trigger_schedule("s"), await client.trigger_schedule("s")]
        for one in triggered:
            assert (await client.wait(one)).status == "finished"
        assert len(await tasks(cluster)) == 2
        assert (await client.get_schedule("s")).next_at is None
        await client.resume_schedule("s")
        await cluster.clock.sleep(60)
        assert len(await tasks(cluster)) == 3
        view = await client.get_schedule("s")
    assert [(one.kind, one.reason) for one in view.history[2:]] == [
        ("skipped", "paused"),
        ("started", None),
    ]


async def test_a_backfill_runs_a_few_tasks_at_once_until_all_are_made() -> None:
    async with Cluster(coordinators=2, handlers=[work]) as cluster:
        client, now = cluster.client, cluster.clock.now_dt()
        await client.put_schedule(every_minute(graph=flow(takes=10), paused=True))
        names = await client.backfill(
            "s", now - timedelta(minutes=6), now - timedelta(minutes=2), limit=2
        )
        assert [one.id for one in await tasks(cluster)] == names[:2]
        await cluster.clock.sleep(35)
        made = await tasks(cluster)
        again = await client.backfill(
            "s", now - timedelta(minutes=6), now - timedelta(minutes=2), limit=2
        )
        await cluster.clock.sleep(5)
        assert len(await tasks(cluster)) == 5
        view = await client.get_schedule("s")
    assert (again, view.backfills) == (names, 0)
    assert [one.id for one in made] == names
    assert all(one.status == "finished" for one in made)


async def test_a_schedule_that_is_put_again_makes_no_time_twice() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_schedule(every_minute())
        await cluster.clock.sleep(90)
        await client.put_schedule(every_minute(labels={"round": "2"}))
        await cluster.clock.sleep(60)
        made = await tasks(cluster)
        view = await client.get_schedule("s")
    assert [one.labels for one in made] == [{}, {"round": "2"}]
    assert len(view.history) == 2


async def test_a_deleted_schedule_makes_no_tasks_and_is_not_found() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_schedule(every_minute("s"))
        await client.put_schedule(every_minute("t", paused=True))
        await client.delete_schedule("s")
        await cluster.clock.sleep(100)
        assert await tasks(cluster) == []
        assert [one.id for one in await client.list_schedules()] == ["t"]
        for verb in (
            client.get_schedule,
            client.pause_schedule,
            client.resume_schedule,
            client.trigger_schedule,
            client.delete_schedule,
        ):
            with pytest.raises(ScheduleNotFound, match="there is no schedule 's'"):
                await verb("s")


async def test_a_task_of_another_origin_is_not_taken_for_that_of_a_nominal_time() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.create_task(
            graph=flow(), params={"day": "mine"}, task_id=f"s@{START}00:01:00Z"
        )
        await client.put_schedule(every_minute())
        await cluster.clock.sleep(90)
        (event,) = (await client.get_schedule("s")).history
    assert (event.kind, event.reason) == ("skipped", "id_taken")


async def test_what_a_task_would_be_refused_for_is_found_when_the_schedule_is_put() -> None:
    typed = {
        **flow(),
        "params": {"type": "object", "properties": {"day": {"type": "integer"}}},
    }
    async with Cluster() as cluster:
        client = cluster.client
        for fields, why in [
            ({"params": {"day": "${schedule.day}"}}, "/params/day.*known fields: id, at"),
            ({"params": {"day": "${params.x}"}}, "unknown name 'params'.*known names: schedule"),
            ({"params": {"day": "${"}}, "is not a valid expression"),
            ({"params": {"day": "${1 / 0}"}}, "cannot be evaluated"),
            ({"graph": typed}, "params.*integer"),
            ({"graph": {"nodes": []}}, "nodes"),
            ({"graph": []}, "graph"),
        ]:
            with pytest.raises(GraphError, match=f"(?s){why}"):
                await client.put_schedule(every_minute(**fields))
        with pytest.raises(GraphError, match="(?s)/params/day.*there is no flow 'daily'"):
            await client.put_schedule(
                every_minute(graph=None, flow="daily", params={"day": "${schedule.day}"})
            )
        with pytest.raises(ScheduleRefused, match="no nominal time in the future"):
            await client.put_schedule(Schedule("s", graph=flow(), at="2020-01-01T00:00:00Z"))
        assert await client.list_schedules() == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"cron": "61 * * * *"}, "cron: '61 .* field minute"),
        ({"jitter_sec": -1.0}, "jitter_sec"),
        ({"end_at": "tomorrow"}, "end_at"),
        ({"crom": "* * * * *"}, "crom"),
    ],
)
async def test_a_copy_of_a_schedule_is_checked_when_it_is_put(changed: Any, why: str) -> None:
    async with Cluster(coordinators=0, workers=0) as cluster:
        with pytest.raises(ScheduleRefused, match=f"the schedule is not valid: {why}"):
            await cluster.client.put_schedule(every_minute().model_copy(update=changed))


async def test_a_single_time_runs_once_and_can_be_put_again_afterwards() -> None:
    once = Schedule("s", graph=flow(), params={"day": 1}, at="2026-01-01T00:01:00Z")
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_schedule(once)
        await cluster.clock.sleep(90)
        view = await cluster.client.put_schedule(once)
        await cluster.clock.sleep(90)
        assert len(await tasks(cluster)) == 1
    assert view.next_at is None


async def test_a_schedule_runs_a_flow_in_its_latest_version_or_in_a_pinned_one() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        with pytest.raises(FlowNotFound, match="no flow 'daily'"):
            await client.put_schedule(every_minute("s", graph=None, flow="daily"))
        await client.put_flow("daily", flow(version=1))
        await client.put_schedule(every_minute("latest", graph=None, flow="daily"))
        await client.put_schedule(every_minute("pinned", graph=None, flow="daily", version=1))
        await cluster.clock.sleep(70)
        await client.put_flow("daily", flow(version=2))
        await cluster.clock.sleep(60)
        made = await tasks(cluster)
        view = await client.get_schedule("pinned")
    assert [(one.schedule, one.flow, one.version, one.result["a"]["version"]) for one in made] == [
        ("latest", "daily", 1, 1),
        ("latest", "daily", 2, 2),
        ("pinned", "daily", 1, 1),
        ("pinned", "daily", 1, 1),
    ]
    assert {one.pipeline for one in made} == {"daily"}
    assert (view.schedule.flow, view.schedule.version, view.schedule.graph) == ("daily", 1, None)


async def test_a_schedule_runs_a_graph_whose_nodes_run_flows_in_their_latest_versions() -> None:
    nested = {"node_id": "n", "type": "subflow", "io": {"flow": "daily", "params": {"day": 1}}}
    async with Cluster(handlers=[work]) as cluster:
        with pytest.raises(GraphError, match="'n': io.flow: there is no flow 'daily'"):
            await cluster.client.put_schedule(every_minute(graph=graph(nested)))
        await cluster.client.put_flow("daily", flow(version=1))
        await cluster.client.put_schedule(every_minute(graph=graph(nested)))
        await cluster.clock.sleep(70)
        await cluster.client.put_flow("daily", flow(version=2))
        await cluster.clock.sleep(60)
        made = [one for one in await tasks(cluster) if one.schedule == "s"]
    assert [one.result["n"]["a"]["version"] for one in made] == [1, 2]


class Refuses:
    refuses = True

    @hookimpl
    def flowkit_before_submit(self, task: Any) -> str | None:
        return "not today" if self.refuses else None


async def test_a_refused_task_is_in_the_history_and_the_next_time_is_made() -> None:
    plugin = Refuses()
    async with Cluster(handlers=[work], plugins=[plugin]) as cluster:
        client = cluster.client
        await client.put_schedule(every_minute())
        await cluster.clock.sleep(70)
        with pytest.raises(TaskRefused, match="not today"):
            await client.trigger_schedule("s")
        plugin.refuses = False
        await cluster.clock.sleep(60)
        view = await client.get_schedule("s")
    assert [one.kind for one in view.history] == ["refused", "refused", "started"]
    assert view.history[0].error is not None
    assert "not today" in view.history[0].error


async def test_a_backfill_says_which_of_its_first_tasks_are_refused() -> None:
    plugin = Refuses()
    async with Cluster(handlers=[work], plugins=[plugin]) as cluster:
        client, now = cluster.client, cluster.clock.now_dt()
        await client.put_schedule(every_minute(paused=True))
        span = now - timedelta(minutes=3), now - timedelta(minutes=1)
        with pytest.raises(TaskRefused, match="3 of the first .* 's@2025-12-31T23:57:00Z'.*today"):
            await client.backfill("s", *span)
        plugin.refuses = False
        names = await client.backfill("s", *span)
        assert [one.id for one in await tasks(cluster)] == names
        await client.create_task(graph=flow(), params={"day": 1}, task_id="s@2025-12-31T23:00:00Z")
        with pytest.raises(TaskRefused, match="1 of the first .* its id belongs to another task"):
            await client.backfill("s", now - timedelta(hours=1), now - timedelta(minutes=59))


class LosesAnswers(InMemoryStore):
    """Store that loses the answer to every other change of keyed records."""

    calls = 0

    async def __aenter__(self) -> "LosesAnswers":
        records, change = self.records, self.records.change

        async def lost(changes: Sequence[RecordChange]) -> Sequence[bool]:
            answer = await change(changes)
            self.calls += 1
            if self.calls % 2:
                raise StoreUnavailable("the answer is lost")
            return answer

        records.change = lost  # type: ignore[method-assign]
        await super().__aenter__()
        return self


async def test_each_verb_waits_for_the_store_and_does_nothing_twice() -> None:
    store = LosesAnswers()
    async with Cluster(coordinators=0, workers=0, store=store) as cluster:
        client, now = cluster.client, cluster.clock.now_dt()
        await client.put_schedule(every_minute())
        triggered = await client.trigger_schedule("s")
        assert [one.id for one in await tasks(cluster)] == [triggered]
        past = now - timedelta(minutes=2)
        filled = await client.backfill("s", past, past)
        assert [one.id for one in await tasks(cluster)] == [*filled, triggered]
        await client.pause_schedule("s")
        assert (await client.get_schedule("s")).paused
        await client.resume_schedule("s")
        assert not (await client.get_schedule("s")).paused
        store.calls = 0
        await client.delete_schedule("s")
        assert await client.list_schedules() == []


async def test_what_is_no_id_is_refused_or_not_found() -> None:
    async with Cluster(coordinators=0) as cluster:
        client = cluster.client
        for verb in (client.get_schedule, client.pause_schedule, client.delete_schedule):
            with pytest.raises(ValueError, match="id of a schedule is a text, not None"):
                await verb(None)  # type: ignore[arg-type]
            with pytest.raises(ScheduleNotFound):
                await verb("\ud800")


async def test_a_damaged_schedule_does_not_hold_up_the_others_and_can_be_deleted() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await cluster.store.records.change(
            [RecordChange("x", [KeyedRecord("schedule", "bad", b"{}", due_at=1.0)])]
        )
        await client.put_schedule(every_minute())
        await cluster.clock.sleep(70)
        assert len(await tasks(cluster)) == 1
        with pytest.raises(CorruptRecord, match="'bad' is damaged"):
            await client.get_schedule("bad")
        assert [one.id for one in await client.list_schedules()] == ["s"]
        await client.delete_schedule("bad")
        with pytest.raises(ScheduleNotFound):
            await client.get_schedule("bad")


async def test_schedules_that_differ_in_their_ids_alone_make_tasks_of_their_own() -> None:
    async with Cluster(coordinators=3, handlers=[work]) as cluster:
        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(cluster.client.put_schedule, every_minute(f"s{number}"))
        await cluster.clock.sleep(70)
        made = await tasks(cluster)
    assert sorted(one.id.split("@")[0] for one in made) == sorted(f"s{n}" for n in range(300))


async def test_a_coordinator_that_decides_by_an_old_state_makes_no_task() -> None:
    async with Cluster(coordinators=0, handlers=[work]) as cluster:
        await cluster.client.put_schedule(every_minute())
        await cluster.clock.sleep(60)
        old = await cluster.store.records.due("schedule", before=cluster.clock.now(), limit=9)
        slow, fast = (_schedules._runs(cluster.client._life.resource) for _ in range(2))
        assert await fast.advance(old) == 1
        await cluster.clock.sleep(100)
        assert await slow.advance(old) == 0
        assert [one.id for one in await tasks(cluster)] == [f"s@{START}00:01:00Z"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"limit": 0}, "limit is at least 1"),
        ({"limit": 1001}, "limit is at most 1000"),
        ({"start": 5}, "start is a datetime with a time zone"),
        (
            {"start": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
            "start is a time between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, not 0001",
        ),
    ],
)
async def test_wrong_arguments_of_a_backfill_are_refused(arguments: Any, why: str) -> None:
    async with Cluster(coordinators=0) as cluster:
        await cluster.client.put_schedule(every_minute())
        now = cluster.clock.now_dt()
        with pytest.raises(ValueError, match=why):
            await cluster.client.backfill("s", **{"start": now, "end": now, **arguments})
