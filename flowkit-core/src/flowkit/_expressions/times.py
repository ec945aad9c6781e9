"""Timestamps and durations, exact to the nanosecond."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from flowkit._expressions.budget import CONVERSION_STEPS, Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.values import Duration, Overloads, Timestamp, no_overload

SECOND = 1_000_000_000
MAX_TEXT = 64
"""Maximum length of the text of a timestamp or duration."""
ZONE_STEPS = 200
"""Charged for a named time zone, whose file is read at its first use."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = -62_135_596_800 * SECOND
_LAST = 253_402_300_800 * SECOND - 1
_LONGEST = 315_576_000_000 * SECOND + SECOND - 1

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:h|ms|m|us|µs|μs|ns|s))+", re.ASCII)
_PART = re.compile(r"(\d*)(?:\.(\d*))?(h|ms|m|us|µs|μs|ns|s)", re.ASCII)
_UNITS = {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ns": 1,
}
_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,3}", re.ASCII)


def parse_timestamp(budget: Budget, text: str) -> Timestamp:
    """Parse a timestamp in the format of RFC 3339."""
    budget.spend(2 * CONVERSION_STEPS)
    found = _TIMESTAMP.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None:
        raise EvaluationError("timestamp() needs a time such as '2026-01-31T12:00:00Z'")
    day, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise EvaluationError("timestamp() needs a valid date and time") from None
    whole = (
        moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta()) if _safe(moment) else None
    )
    if whole is None:
        raise EvaluationError("the timestamp is outside the years 1 to 9999")
    since = whole - _EPOCH.replace(tzinfo=None)
    return _timestamp(
        (since.days * 86_400 + since.seconds) * SECOND + int((fraction or "").ljust(9, "0"))
    )


def _safe(moment: datetime) -> bool:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


def parse_duration(budget: Budget, text: str) -> Duration:
    """Parse a duration such as ``1h30m`` or ``1.5s``."""
    budget.spend(2 * CONVERSION_STEPS + min(len(text), MAX_TEXT))
    if text in ("0", "+0", "-0"):
        return Duration(0)
    found = _DURATION.fullmatch(text) if len(text) <= MAX_TEXT else None
    if found is None:
        raise EvaluationError("duration() needs a duration such as '1h30m' or '1.5s'")
    nanos = sum(
        int(whole or 0) * _UNITS[unit]
        + (int(fraction) * _UNITS[unit] // 10 ** len(fraction) if fraction else 0)
        for whole, fraction, unit in _PART.findall(text)
    )
    return _duration(-nanos if found[1] == "-" else nanos)


def _timestamp(nanos: int) -> Timestamp:
    if _FIRST <= nanos <= _LAST:
        return Timestamp(nanos)
    raise EvaluationError("the timestamp is outside the years 1 to 9999")


def _duration(nanos: int) -> Duration:
    if -_LONGEST <= nanos <= _LONGEST:
        return Duration(nanos)
    raise EvaluationError("the duration is longer than 10,000 years")


def timestamp_of_seconds(seconds: int) -> Timestamp:
    """Return the timestamp this many seconds after the start of 1970."""
    return _timestamp(seconds * SECOND)


def timestamp_text(value: Timestamp) -> str:
    """Format a timestamp as in RFC 3339, in UTC."""
    seconds, nanos = divmod(value.nanos, SECOND)
    moment = (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    return f"{moment}{_fraction(nanos)}Z"


def duration_text(value: Duration) -> str:
    """Format a duration in seconds, such as ``1.5s``."""
    seconds, nanos = divmod(abs(value.nanos), SECOND)
    return f"{'-' if value.nanos < 0 else ''}{seconds}{_fraction(nanos)}s"


def _fraction(nanos: int) -> str:
    return f".{nanos:09d}".rstrip("0") if nanos else ""


# ---------------------------------------------------------------- arithmetic


def plus(left: Any, right: Any) -> Timestamp | Duration:
    """Add a duration to a timestamp or a duration."""
    match left, right:
        case Timestamp(), Duration():
            return _timestamp(left.nanos + right.nanos)
        case Duration(), Timestamp():
            return _timestamp(left.nanos + right.nanos)
        case Duration(), Duration():
            return _duration(left.nanos + right.nanos)
    raise no_overload("+", left, right)


def time_minus(left: Any, right: Any) -> Timestamp | Duration:
    """Subtract a duration, or return the duration between two timestamps."""
    match left, right:
        case Timestamp(), Duration():
            return _timestamp(left.nanos - right.nanos)
        case (Timestamp(), Timestamp()) | (Duration(), Duration()):
            return _duration(left.nanos - right.nanos)
    raise no_overload("-", left, right)


# ---------------------------------------------------------------- fields


def _zone(name: str) -> tzinfo:
    found = _OFFSET.fullmatch(name) if len(name) <= MAX_TEXT else None
    if found is not None:
        minutes = int(found[2]) * 60 + int(found[3])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))
    elif len(name) <= MAX_TEXT and _ZONE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, LookupError):
            pass
    raise EvaluationError(
        "unknown time zone; use a name such as 'Europe/Berlin' or an offset such as '+02:00'"
    )


def _field(read: Callable[[datetime], int]) -> Overloads:
    def in_zone(budget: Budget, value: Timestamp, zone: str) -> int:
        budget.spend(ZONE_STEPS)
        moment = _EPOCH + timedelta(microseconds=value.nanos // 1_000)
        try:
            return read(moment.astimezone(_zone(zone)))
        except OverflowError:
            raise EvaluationError(
                "the timestamp is outside the years 1 to 9999 in this time zone"
            ) from None

    def in_utc(budget: Budget, value: Timestamp) -> int:
        budget.spend(CONVERSION_STEPS)
        return read(_EPOCH + timedelta(microseconds=value.nanos // 1_000))

    return {(Timestamp,): in_utc, (Timestamp, str): in_zone}


def _total(nanos: int) -> Callable[..., int]:
    """Return a function that counts the whole units of this length in a duration."""

    def count(budget: Budget, value: Duration) -> int:
        return abs(value.nanos) // nanos * (-1 if value.nanos < 0 else 1)

    return count


def _milliseconds(budget: Budget, value: Duration) -> int:
    return abs(value.nanos) % SECOND // 1_000_000 * (-1 if value.nanos < 0 else 1)


METHODS: dict[str, Overloads] = {
    "getFullYear": _field(lambda moment: moment.year),
    "getMonth": _field(lambda moment: moment.month - 1),
    "getDate": _field(lambda moment: moment.day),
    "getDayOfMonth": _field(lambda moment: moment.day - 1),
    "getDayOfWeek": _field(lambda moment: moment.isoweekday() % 7),
    "getDayOfYear": _field(lambda moment: moment.timetuple().tm_yday - 1),
    "getHours": _field(lambda moment: moment.hour) | {(Duration,): _total(3600 * SECOND)},
    "getMinutes": _field(lambda moment: moment.minute) | {(Duration,): _total(60 * SECOND)},
    "getSeconds": _field(lambda moment: moment.second) | {(Duration,): _total(SECOND)},
    "getMilliseconds": _field(lambda moment: moment.microsecond // 1_000)
    | {(Duration,): _milliseconds},
}
