"""Timetables: the nominal times of a schedule."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from typing import Protocol

from flowkit._json.limits import Moment
from flowkit._schedules._cron import CronLine, zone_of
from flowkit._schedules._schedule import LAST_NOMINAL, IntervalSec, JitterSec, Schedule

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """The fields of a schedule that say when its tasks are made."""

    cron: str | None
    every_sec: IntervalSec | None
    at: Moment | None
    timezone: str
    start_at: Moment | None
    end_at: Moment | None
    jitter_sec: JitterSec

    @classmethod
    def of(cls, schedule: Schedule) -> "Timing":
        """Return the timing of a schedule."""
        at, start, end = (
            None if time is None else time.timestamp()
            for time in (schedule.at, schedule.start_at, schedule.end_at)
        )
        return cls(
            schedule.cron,
            schedule.every_sec,
            at,
            schedule.timezone,
            start,
            end,
            schedule.jitter_sec,
        )


class Timetable(Protocol):
    """Nominal times in order."""

    def after(self, moment: float) -> float | None:
        """Return the first nominal time after ``moment``, or None if there is none."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """Times at equal distances. They are computed in whole microseconds, without drift."""

    every: int
    first: int | None
    """The first time; without it, the times count from 1970."""

    def after(self, moment: float) -> float | None:
        origin = self.first or 0
        number = (round(moment * _MICRO) - origin) // self.every + 1
        if self.first is not None:
            number = max(number, 0)
        return (origin + number * self.every) / _MICRO


@dataclass(frozen=True, slots=True)
class _Once:
    at: float

    def after(self, moment: float) -> float | None:
        return self.at if moment < self.at else None


@dataclass(frozen=True, slots=True)
class _Bounded:
    """Times of another timetable from ``start`` to ``end``, both included."""

    times: Timetable
    start: float | None
    end: float

    def after(self, moment: float) -> float | None:
        if self.start is not None and moment < self.start:
            moment = ceil(self.start) - 1
            found = self.times.after(moment)
            while found is not None and found < self.start:
                found = self.times.after(found)
        else:
            found = self.times.after(moment)
        return None if found is None or found > self.end else found


@lru_cache(maxsize=20_000)
def _cron_line(line: str, zone: str) -> CronLine:
    return CronLine(line, zone)


def timetable_of(timing: Timing) -> Timetable:
    """Return the nominal times of a schedule.

    Raises:
        ValueError: the timing is not valid.
    """
    start, end = timing.start_at, timing.end_at
    times: Timetable
    if timing.cron is not None:
        times = _cron_line(timing.cron, timing.timezone)
    elif timing.every_sec is not None:
        first = None if start is None else round(start * _MICRO)
        times = _Interval(round(timing.every_sec * _MICRO), first)
    else:
        if timing.at is None:
            raise ValueError("a schedule without times")
        times = _Once(timing.at)
    return _Bounded(times, start, LAST_NOMINAL if end is None else min(end, LAST_NOMINAL))


def next_times(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Return up to ``count`` nominal times of a schedule after a moment, in its time zone."""
    times, zone = timetable_of(Timing.of(schedule)), zone_of(schedule.timezone)
    found: list[datetime] = []
    moment: float | None = after.timestamp()
    while len(found) < count and moment is not None:
        moment = times.after(moment)
        if moment is not None:
            found.append(datetime.fromtimestamp(moment, zone))
    return found


def jitter_of(schedule_id: str, nominal: float, most_sec: float) -> float:
    """Return the delay of a nominal time: below ``most_sec``, and always the same."""
    if not most_sec:
        return 0.0
    cause = f"{schedule_id}@{nominal!r}".encode()
    digest = blake2b(cause, person=b"flowkit jitter", digest_size=8).digest()
    return most_sec * (int.from_bytes(digest) / 2**64)
