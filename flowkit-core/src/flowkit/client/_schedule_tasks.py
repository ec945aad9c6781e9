"""Tasks of schedules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit._expressions import Budget
from flowkit._records.schedule_records import Definition
from flowkit._schedules import Entry, params_at, task_id_of
from flowkit.client import _task_maker
from flowkit.client._task_maker import Planned, Services, TaskMaker
from flowkit.task import ScheduleOrigin


@dataclass(frozen=True, slots=True)
class Due:
    """A nominal time whose task is to be made."""

    definition: Definition
    at: float
    awaited: bool
    """The schedule does something when the task has ended."""

    @property
    def task_id(self) -> str:
        return task_id_of(self.definition.schedule.id, self.at)


@dataclass(frozen=True, slots=True)
class Made:
    """Outcome of a nominal time: its task exists, unless there is an entry with the reason."""

    entry: Entry | None = None
    is_new: bool = False


class ScheduleTasks:
    """Makes the tasks of nominal times. Making one again changes nothing."""

    def __init__(self, services: Services) -> None:
        self._maker = TaskMaker(services)

    async def make(self, due: Sequence[Due]) -> Mapping[str, Made]:
        """Store the tasks of nominal times and start them. Return the outcomes by task id."""
        made = await self._maker.make([_planned(one) for one in due])
        return {one.task_id: _outcome(one.at, made[one.task_id]) for one in due}


def _planned(due: Due) -> Planned:
    schedule = due.definition.schedule

    def params(budget: Budget, at_once: bool) -> dict[str, Any]:
        return params_at(schedule.params, schedule.id, due.at, budget, at_once=at_once)

    origin = ScheduleOrigin(schedule.id, due.at, due.awaited)
    return Planned(due.task_id, schedule, due.definition.graph, params, origin)


def _outcome(at: float, made: _task_maker.Made) -> Made:
    if made.error is not None:
        return Made(Entry(at, at, error=made.error))
    return Made(Entry(at, at, skipped="id_taken") if made.taken else None, made.is_new)
