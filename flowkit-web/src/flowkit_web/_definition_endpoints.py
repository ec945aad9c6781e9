"""Endpoints of flows, schedules and triggers."""

from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Query

from flowkit import (
    FlowInfo,
    FlowVersion,
    Page,
    Schedule,
    ScheduleView,
    Trigger,
    TriggerView,
    next_times,
)
from flowkit.adapters import read_time
from flowkit_web import _bodies as bodies
from flowkit_web._problems import invalid_arguments
from flowkit_web._routing import Id, OfClient

MOST_TIMES = 1_000


async def list_flows(client: OfClient) -> Page[FlowInfo]:
    """List the registered flows with their latest versions, by name."""
    return Page(await client.list_flows(), None)


async def put_flow(client: OfClient, body: bodies.NewFlow) -> FlowVersion:
    """Register a graph as the latest version of a flow."""
    return await client.put_flow(body.name, body.graph, description=body.description)


async def get_flow(
    client: OfClient, name: Id, version: Annotated[int | None, Query(ge=1)] = None
) -> FlowVersion:
    """Return a version of a flow; the latest one without `version`."""
    return await client.get_flow(name, version)


# ---------------------------------------------------------------- schedules


async def list_schedules(client: OfClient) -> Page[ScheduleView]:
    """List all schedules, by id."""
    return Page(await client.list_schedules(), None)


async def put_schedule(client: OfClient, body: Schedule) -> ScheduleView:
    """Store a schedule, in place of one with the same id."""
    return await client.put_schedule(body)


async def get_schedule(client: OfClient, schedule_id: Id) -> ScheduleView:
    """Return a schedule with its state and the end of its history."""
    return await client.get_schedule(schedule_id)


async def list_next_times(
    client: OfClient,
    schedule_id: Id,
    count: Annotated[int, Query(ge=1, le=MOST_TIMES, description="Most times.")] = 10,
) -> bodies.NextTimes:
    """List the next nominal times of a schedule, also while it is paused."""
    view = await client.get_schedule(schedule_id)
    return bodies.NextTimes(times=next_times(view.schedule, client.clock.now_dt(), count))


async def pause_schedule(client: OfClient, schedule_id: Id) -> None:
    """Pause a schedule."""
    await client.pause_schedule(schedule_id)


async def resume_schedule(client: OfClient, schedule_id: Id) -> None:
    """End the pause of a schedule."""
    await client.resume_schedule(schedule_id)


async def trigger_schedule(client: OfClient, schedule_id: Id) -> bodies.Created:
    """Make a task of a schedule now."""
    return bodies.Created(id=await client.trigger_schedule(schedule_id))


async def backfill_schedule(
    client: OfClient, schedule_id: Id, body: bodies.Span
) -> Page[bodies.Created]:
    """Make the tasks of past nominal times, and return the ids of all of them."""
    zone = ZoneInfo((await client.get_schedule(schedule_id)).schedule.timezone)
    with invalid_arguments():
        first, last = read_time(body.start, zone), read_time(body.end, zone)
        made = await client.backfill(schedule_id, first, last, limit=body.limit)
    return Page([bodies.Created(id=task_id) for task_id in made], None)


async def delete_schedule(client: OfClient, schedule_id: Id) -> None:
    """Delete a schedule with its history. Its tasks stay."""
    await client.delete_schedule(schedule_id)


# ---------------------------------------------------------------- triggers


async def list_triggers(client: OfClient) -> Page[TriggerView]:
    """List all triggers, by id, with the number of events that wait for each of them."""
    return Page(await client.list_triggers(behind=True), None)


async def put_trigger(client: OfClient, body: Trigger) -> TriggerView:
    """Store a trigger, in place of one with the same id."""
    return await client.put_trigger(body)


async def pause_trigger(client: OfClient, trigger_id: Id) -> None:
    """Pause a trigger. Its events are kept until it is resumed."""
    await client.pause_trigger(trigger_id)


async def resume_trigger(client: OfClient, trigger_id: Id) -> None:
    """End the pause of a trigger."""
    await client.resume_trigger(trigger_id)


async def delete_trigger(client: OfClient, trigger_id: Id) -> None:
    """Delete a trigger. Its tasks stay."""
    await client.delete_trigger(trigger_id)
