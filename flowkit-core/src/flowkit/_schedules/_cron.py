"""Times of cron lines in time zones."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31 or L",
    "month": "1 to 12 or a name such as JAN",
    "day of the week": "0 to 7 or a name such as MON",
}
"""Fields of a cron line, and their values."""
CRON_ERRORS = (CronSimError, ValueError, AssertionError, TypeError)
_MANY_HOURS_SEC = 12 * 3600
_LARGEST_CHANGE = timedelta(hours=25)
"""More than any zone has ever set back its clocks."""
_EARLIEST = round(datetime(1000, 1, 3, tzinfo=UTC).timestamp())
"""Earlier times are not searched. Those of the year 1 have no local time in some zones."""


class InvalidCron(ValueError):
    """A cron line or a time zone is not valid. The message ends a sentence."""


class CronLine:
    """A cron line in the local time of a zone.

    If the hour field has a ``*`` or a step, the times follow real time when the clock changes: a
    local time that does not exist is left out, and one that occurs twice counts twice. Otherwise,
    a local time that does not exist is replaced by the next one that exists, and one that occurs
    twice counts once, the first time.
    """

    def __init__(self, line: str, zone: str) -> None:
        """Raise InvalidCron if the line or the zone is not valid."""
        self._line = _fields_of(line)
        self._zone = zone_of(zone)
        hour = self._line.split()[1]
        self._follows_real_time = "*" in hour or "/" in hour
        self._is_utc = zone == "UTC"

    def after(self, moment: float) -> float | None:
        """Return the first time after ``moment``, or None if there is none in the next 50 years."""
        second = max(floor(moment), _EARLIEST)
        try:
            found = self._found_after(second)
        except OverflowError:
            return None  # after the year 9999
        return None if found is None else float(found)

    def _found_after(self, second: int) -> int | None:
        if self._is_utc:
            local = next(self._locals(_as_local(second)), None)
            return None if local is None else _utc_seconds(local)
        if self._follows_real_time:
            return self._in_real_time(second)
        return self._in_local_time(second)

    # ------------------------------------------------------------ local time

    def _in_local_time(self, second: int) -> int | None:
        for local in self._locals(self._local(second)):
            instant = self._replaced(local)
            if instant > second:
                return instant
        return None

    def _replaced(self, local: datetime) -> int:
        """Return when a local time occurs first; if it does not exist, when the next one that
        exists occurs.
        """
        later = self._instant(local, fold=0)
        if self._local(later) == local:
            return later
        # The clock was set forward between these two moments.
        earlier = self._instant(local, fold=1)
        offset = self._offset(earlier)
        while later - earlier > 1:
            middle = (earlier + later) // 2
            if self._offset(middle) == offset:
                earlier = middle
            else:
                later = middle
        return later

    # ------------------------------------------------------------ real time

    def _in_real_time(self, second: int) -> int | None:
        offset = self._offset(second)
        local = next(self._locals(self._local(second)), None)
        if local is None:
            return None
        instant = _utc_seconds(local) - offset
        if instant - second <= _MANY_HOURS_SEC and self._offset(instant) == offset:
            return instant
        return self._near_a_change(second)

    def _near_a_change(self, second: int) -> int | None:
        """Return the first time after this second, though the clock may change before it."""
        best: int | None = None
        for local in self._locals(self._local(second) - _LARGEST_CHANGE):
            for instant in (self._instant(local, fold=0), self._instant(local, fold=1)):
                if self._local(instant) != local:
                    break  # it does not exist
                if best is not None and instant >= best:
                    return best
                if instant > second:
                    best = instant
        return best

    # ------------------------------------------------------------ conversions

    def _locals(self, local: datetime) -> Iterator[datetime]:
        """Yield the local times of the line after this one, as if the clock never changed."""
        return CronSim(self._line, local)

    def _local(self, second: int) -> datetime:
        return datetime.fromtimestamp(second, self._zone).replace(tzinfo=None, fold=0)

    def _instant(self, local: datetime, *, fold: int) -> int:
        return round(local.replace(tzinfo=self._zone, fold=fold).timestamp())

    def _offset(self, second: int) -> int:
        """Return the seconds by which local time is ahead of UTC."""
        return _utc_seconds(self._local(second)) - second


def _as_local(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None)


def _utc_seconds(local: datetime) -> int:
    return round(local.replace(tzinfo=UTC).timestamp())


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        InvalidCron: there is none with this name.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise InvalidCron(
            f"{name[:80]!r} is not a known time zone, such as 'Europe/Berlin'; if this machine has"
            " no time zone data, install the package tzdata"
        ) from None


@lru_cache(maxsize=1024)
def _fields_of(line: str) -> str:
    """Return the five fields of a cron line."""
    text = ALIASES.get(line.strip().lower(), line)
    if text.strip().startswith("@"):
        raise InvalidCron(f"{line[:80]!r} is not one of {', '.join(sorted(ALIASES))}")
    if (count := len(text.split())) != 5:
        raise InvalidCron(
            f"{line[:80]!r} has {count} fields; a cron line has five: minute, hour, day of the"
            " month, month, day of the week"
        )
    try:
        CronSim(text, datetime(2026, 1, 1))
    except CRON_ERRORS:
        raise InvalidCron(f"{line[:80]!r} is not a valid cron line: {_fault_of(text)}") from None
    return " ".join(text.split())


def _fault_of(text: str) -> str:
    """Return what is wrong with a cron line of five fields."""
    fields = text.split()
    for place, (name, allowed) in enumerate(FIELDS.items()):
        alone = ["*"] * place + [fields[place]] + ["*"] * (4 - place)
        try:
            CronSim(" ".join(alone), datetime(2026, 1, 1))
        except CRON_ERRORS:
            return (
                f"{fields[place][:40]!r} is not valid in the field {name}, whose values are"
                f" {allowed}"
            )
    return f"the month {fields[3][:40]!r} has no day {fields[2][:40]!r}"
