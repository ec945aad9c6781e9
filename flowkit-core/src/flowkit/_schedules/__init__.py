"""Schedules: their definition, their nominal times, and their state machine."""

from flowkit._schedules._advance import Step, advance_schedule, started
from flowkit._schedules._changes import (
    backfilled,
    new_state,
    paused,
    redefined,
    resumed,
    triggered,
)
from flowkit._schedules._cron import zone_of
from flowkit._schedules._due_times import CLAIM_SEC, wake_at
from flowkit._schedules._params import faults_in_params, params_at
from flowkit._schedules._schedule import Schedule, task_id_of, time_text
from flowkit._schedules._state import Entry, Rules, ScheduleState
from flowkit._schedules._timetable import Timing, next_times, timetable_of
from flowkit._schedules._views import ScheduleEvent, ScheduleView, schedule_view

__all__ = [
    "CLAIM_SEC",
    "Entry",
    "Rules",
    "Schedule",
    "ScheduleEvent",
    "ScheduleState",
    "ScheduleView",
    "Step",
    "Timing",
    "advance_schedule",
    "backfilled",
    "faults_in_params",
    "new_state",
    "next_times",
    "params_at",
    "paused",
    "redefined",
    "resumed",
    "schedule_view",
    "started",
    "task_id_of",
    "time_text",
    "timetable_of",
    "triggered",
    "wake_at",
    "zone_of",
]
