"""Checks of schedules that are put."""

from typing import Any

from flowkit._expressions import BudgetExceeded
from flowkit._records.schedule_records import Definition
from flowkit._schedules import Schedule, Timing, faults_in_params, params_at, timetable_of
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.flow_versions import fixed_versions
from flowkit._tasks.submission import checked
from flowkit.client._session import Session
from flowkit.errors import (
    CorruptRecord,
    Fault,
    FlowNotFound,
    GraphError,
    NodeFailure,
)


async def checked_definition(session: Session, schedule: Schedule) -> Definition:
    """Return the definition of a schedule, once it is checked as far as a task can be.

    Raises:
        GraphError: it has faults; all of them are listed.
        FlowNotFound, CorruptRecord: its flow does not exist, or cannot be read.
    """
    faults = [Fault(None, text) for text in faults_in_params(schedule.params)]
    sample: dict[str, Any] | None = None
    if not faults:
        now = session.clock.now()
        at = timetable_of(Timing.of(schedule)).after(now) or now
        try:
            sample = await Evaluations().bounded(
                lambda budget, at_once: params_at(
                    schedule.params, schedule.id, at, budget, at_once=at_once
                )
            )
        except (NodeFailure, BudgetExceeded) as error:
            faults = [Fault(None, str(error))]
    flow, source = None, schedule.graph
    if schedule.flow is not None:
        try:
            flow, source = await session.flows.chosen(schedule.flow, schedule.version)
        except (FlowNotFound, CorruptRecord) as error:
            if not faults:
                raise
            raise GraphError([*faults, Fault(None, str(error))]) from None
    try:
        parsed, _, _ = await checked(
            source,
            sample,
            checks=session.checks,
            task_id=None,
            idempotency_key=None,
            pipeline=schedule.pipeline,
            labels=schedule.labels,
            priority=schedule.priority,
            deadline_sec=schedule.deadline_sec,
        )
    except GraphError as error:
        raise GraphError([*faults, *error.faults]) from None
    if faults:
        raise GraphError(faults)
    await fixed_versions(parsed, flow, flows=session.flows, checks=session.checks)
    return Definition.of(schedule, parsed.source if schedule.flow is None else b"")
