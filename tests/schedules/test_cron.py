"""Times of cron lines, also where the clock changes."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from flowkit._json.limits import FIRST_MOMENT
from flowkit._schedules._cron import CronLine, InvalidCron

MINUTE = 60
AROUND = 5 * 60 * MINUTE
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
REAL_TIME = ["*/15 * * * *", "0 */6 * * *", "7 * * * *", "5 1-4/1 * * *"]
LOCAL_TIME = ["30 2 * * *", "0 0 * * *", "*/20 2 * * 0", "15 1,2,3 * * *", "45 1 1-7 * *"]


def seconds(*parts: int, zone: str = "UTC") -> int:
    return round(datetime(*parts, tzinfo=ZoneInfo(zone)).timestamp())  # type: ignore[arg-type, misc]


def changes(zone: ZoneInfo, first: int, last: int) -> list[int]:
    """Return the hours in which the clock of a zone changes."""
    hours = range(first, last, 60 * MINUTE)
    offsets = [datetime.fromtimestamp(hour, zone).utcoffset() for hour in hours]
    return [hours[place] for place, (a, b) in enumerate(pairwise(offsets)) if a != b]


def matches(line: str, local: datetime) -> bool:
    """Match a local time with a cron line, field by field: an independent reading of cron."""
    minutes, hours, days, months, weekdays = fields_of(line)
    return (
        local.minute in minutes
        and local.hour in hours
        and local.day in days
        and local.month in months
        and local.isoweekday() % 7 in weekdays
    )


@cache
def fields_of(line: str) -> list[set[int]]:
    ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    return [
        {number for term in field.split(",") for number in numbers(term, low, high)}
        for field, (low, high) in zip(line.split(), ranges, strict=True)
    ]


def numbers(term: str, low: int, high: int) -> range:
    span, _, step = term.partition("/")
    if span != "*":
        start, _, end = span.partition("-")
        low, high = int(start), int(end or start)
    return range(low, high + 1, int(step or 1))


@cache
def clock(zone: ZoneInfo, first: int, last: int) -> tuple[range, list[datetime]]:
    """Return the minutes of a span, and the local time of each."""
    minutes = range(first, last, MINUTE)
    shown = [datetime.fromtimestamp(one, zone).replace(tzinfo=None, fold=0) for one in minutes]
    return minutes, shown


def expected(line: str, zone: ZoneInfo, first: int, last: int) -> list[int]:
    """Return the times of a line by trying every minute."""
    minutes, shown = clock(zone, first, last)
    if line in REAL_TIME:
        return [one for one, local in zip(minutes, shown, strict=True) if matches(line, local)]
    earliest: dict[datetime, int] = {}
    for one, local in zip(minutes, shown, strict=True):
        earliest.setdefault(local, one)
    found = set()
    local = min(shown)
    while local <= max(shown):
        if matches(line, local):
            existing = local
            while existing not in earliest:
                existing += timedelta(minutes=1)
            found.add(earliest[existing])
        local += timedelta(minutes=1)
    return sorted(found)


@pytest.mark.parametrize("name", ZONES)
def test_ten_years_over_every_change_of_the_clock_agree_with_a_calculation_by_minutes(
    name: str,
) -> None:
    zone = ZoneInfo(name)
    found = changes(zone, seconds(2026, 1, 1), seconds(2036, 1, 1))
    assert len(found) == 20
    for change in found:
        first, last = change - AROUND, change + AROUND
        for line in REAL_TIME + LOCAL_TIME:
            cron, times = CronLine(line, name), []
            moment = cron.after(first - 1)
            while moment is not None and moment < last:
                times.append(moment)
                moment = cron.after(moment)
            # The first ones of the calculation may have been before its span.
            wanted = expected(line, zone, first, last)
            assert times == wanted, (name, line, change)


def test_a_local_time_that_does_not_exist_runs_once_at_the_next_that_does() -> None:
    line = CronLine("0,30 2 * * *", "Europe/Berlin")
    before = seconds(2026, 3, 29)
    first = line.after(before)
    assert first == seconds(2026, 3, 29, 3, zone="Europe/Berlin")
    assert line.after(first) == seconds(2026, 3, 30, 2, zone="Europe/Berlin")


def test_a_local_time_that_comes_twice_runs_once() -> None:
    line = CronLine("30 2 * * *", "Europe/Berlin")
    first = line.after(seconds(2026, 10, 24, 12))
    assert first == seconds(2026, 10, 25, 0, 30)
    assert line.after(first) == seconds(2026, 10, 26, 1, 30)


@pytest.mark.parametrize(
    ("line", "fields"),
    [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), (" 0  4 * * 1 ", "0 4 * * MON")],
)
def test_short_forms_and_names_mean_the_same(line: str, fields: str) -> None:
    now = seconds(2026, 5, 1)
    assert CronLine(line, "UTC").after(now) == CronLine(fields, "UTC").after(now)


def test_a_leap_day_is_found_years_later() -> None:
    line = CronLine("0 0 29 2 *", "Europe/Berlin")
    assert line.after(seconds(2026, 1, 1)) == seconds(2028, 2, 29, zone="Europe/Berlin")


def test_times_end_with_the_last_year() -> None:
    assert CronLine("0 0 1 1 *", "UTC").after(seconds(9999, 6, 1)) is None
    assert CronLine("0 * * * *", "Europe/Berlin").after(seconds(9999, 12, 31, 23)) is None


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_a_search_from_the_year_1_finds_times_in_each_zone(zone: str) -> None:
    found = CronLine("0 0 * * *", zone).after(FIRST_MOMENT)
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).year == 1000


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("* * * *", "has 4 fields"),
        ("0 0 0 * * *", "has 6 fields"),
        ("@reboot", "is not one of @annually"),
        ("60 * * * *", "'60' is not valid in the field minute, whose values are 0 to 59"),
        ("0 0 * * 8", "'8' is not valid in the field day of the week, .* such as MON"),
        ("0 0 30 2 *", "the month '2' has no day '30'"),
        ("*/0 * * * *", "'\\*/0' is not valid in the field minute"),
        ("0 0 L/2-3 * *", "is not a valid cron line"),
        ("", "has 0 fields"),
    ],
)
def test_a_wrong_line_is_refused_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(InvalidCron, match=why):
        CronLine(line, "UTC")


@pytest.mark.parametrize("zone", ["Nowhere/City", "../etc/passwd", "", "Europe"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidCron, match="not a known time zone"):
        CronLine("@daily", zone)


def test_a_time_between_seconds_is_before_the_next_one() -> None:
    line = CronLine("* * * * *", "UTC")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    assert line.after(noon - 1e-3) == noon
    assert line.after(noon + 0.5) == noon + 60
