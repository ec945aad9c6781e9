"""The definition of a schedule."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from flowkit._expressions.templates import OPENING
from flowkit._json.limits import (
    FIRST_MOMENT,
    LAST_MOMENT,
    LONGEST_SEC,
    MAX_ID_CHARS,
    LabelKey,
    LabelText,
    PositiveSeconds,
    Priority,
    addressable,
)
from flowkit._schedules._cron import CronLine, zone_of
from flowkit.graph._models import LAST_VERSION

MAX_SCHEDULE_ID_CHARS = 160
"""Length of the id of a schedule. The ids of its tasks are longer."""
LONGEST_CRON = 1_000
"""Characters of a cron line. All values of all fields together are shorter."""
LONGEST_JITTER_SEC = 24 * 3600.0
_MARGIN_SEC = 2 * 24 * 3600.0
FIRST_NOMINAL = FIRST_MOMENT + _MARGIN_SEC
"""First time of a schedule. Its local time in each zone is a ``datetime`` too."""
LAST_NOMINAL = LAST_MOMENT - _MARGIN_SEC
"""Last time of a schedule. With the longest jitter, it is a moment in each zone too."""

Overlap = Literal["skip", "queue", "allow", "cancel_running"]
CatchUp = Literal["latest", "all", "none"]


def printable(text: str) -> str:
    """Return a text, or raise a ValueError if it has characters that cannot be printed."""
    if not text.isprintable():
        raise ValueError("it contains characters that cannot be printed")
    return text


def literal(text: str) -> str:
    """Return a text, or raise a ValueError if it has an expression, which nothing evaluates."""
    if OPENING in text:
        raise ValueError(f"expressions ({OPENING}…}}) are not supported here; write the text")
    return text


def _time(value: Any) -> Any:
    if isinstance(value, datetime | str):
        return value
    raise ValueError("expected a time with a zone: a datetime, or a text in ISO 8601")


def _in_range(time: datetime) -> datetime:
    if FIRST_NOMINAL <= time.timestamp() <= LAST_NOMINAL:
        return time
    first, last = time_text(FIRST_NOMINAL), time_text(LAST_NOMINAL)
    raise ValueError(f"{time.isoformat()} is not between {first} and {last}")


ScheduleId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_SCHEDULE_ID_CHARS),
    AfterValidator(printable),
    AfterValidator(addressable),
]
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS), AfterValidator(printable)]
Pipeline = Annotated[Name, AfterValidator(literal)]
Labels = dict[
    Annotated[LabelKey, AfterValidator(literal)], Annotated[LabelText, AfterValidator(literal)]
]
Time = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_time), AfterValidator(_in_range)
]
"""Time with a zone. A text in ISO 8601 is also accepted."""
IntervalSec = Annotated[float, Field(ge=1, le=LONGEST_SEC)]
JitterSec = Annotated[float, Field(ge=0, le=LONGEST_JITTER_SEC)]


class Schedule(BaseModel):
    """A schedule: it makes a task of a graph or flow at each of its nominal times.

    Give exactly one of ``graph`` and ``flow``, and one of ``cron``, ``every_sec`` and ``at``. Each
    nominal time makes at most one task, whose id is ``<schedule id>@<nominal time>``, and exactly
    one unless ``overlap`` or ``catch_up`` says otherwise. A wrong field is a :class:`ValueError`
    that names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: ScheduleId
    graph: Any = None
    """Graph of the tasks: a dict, a :class:`~flowkit.Graph` or a flow in Python."""
    flow: Name | None = None
    """Name of a registered flow, instead of a graph."""
    version: Annotated[int, Field(ge=1, le=LAST_VERSION)] | None = None
    """Version of the flow. Without it, each task runs the version that is the latest then."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Params of the tasks. ``${ … }`` is an expression, which sees ``schedule.id`` and the nominal
    time ``schedule.at``.
    """
    cron: Annotated[str, Field(max_length=LONGEST_CRON)] | None = None
    """Five fields, or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly`` or ``@yearly``, in the
    local time of ``timezone``.
    """
    every_sec: IntervalSec | None = None
    """Interval, at least a second. It counts from ``start_at``, else from 1970."""
    at: Time | None = None
    """The only nominal time."""
    timezone: str = "UTC"
    """Time zone of ``cron``."""
    start_at: Time | None = None
    """No nominal time is before it."""
    end_at: Time | None = None
    """No nominal time is after it."""
    jitter_sec: JitterSec = 0.0
    """Longest delay of a task. The delay of each nominal time is random, and always the same. The
    tasks keep the order of their nominal times.
    """
    overlap: Overlap = "skip"
    """Rule for a nominal time at which a task of the schedule has not ended: ``skip`` makes no
    task, ``queue`` makes it when the others have ended, ``allow`` makes it at once, and
    ``cancel_running`` cancels the others and makes it when they have ended.
    """
    catch_up: CatchUp = "latest"
    """Rule for nominal times that no coordinator has handled within 30 seconds: ``latest`` makes a
    task for the latest time that is due, and skips all before it, ``all`` makes one for each of
    them, and ``none`` for none.
    """
    catch_up_window_sec: PositiveSeconds | None = None
    """Nominal times that were missed longer ago are skipped."""
    paused: bool = False
    """Whether the schedule begins as paused. If it is given for a schedule that exists, it pauses
    or resumes it.
    """
    labels: Labels = Field(default_factory=dict)
    priority: Priority = 0
    deadline_sec: PositiveSeconds | None = None
    """Time limit of each task. The default is the graph's own."""
    pipeline: Pipeline | None = None
    """Pipeline of the tasks. The default is the name of the flow."""

    def __init__(self, id: str | None = None, /, **fields: Any) -> None:  # noqa: A002
        super().__init__(**({} if id is None else {"id": id}), **fields)

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, line: str | None) -> str | None:
        if line is not None:
            CronLine(line, "UTC")
        return line

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        zone_of(name)
        return name

    @model_validator(mode="after")
    def _check_fields(self) -> "Schedule":
        if (self.graph is None) == (self.flow is None):
            raise ValueError("give exactly one of graph and flow")
        if self.version is not None and self.flow is None:
            raise ValueError("version has no effect without flow; leave it out")
        kinds = [name for name in ("cron", "every_sec", "at") if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            raise ValueError(f"give exactly one of cron, every_sec and at, not {found}")
        (kind,) = kinds
        for name, allowed in _ONLY_WITH.items():
            given = name in self.model_fields_set and getattr(self, name) is not None
            if given and kind not in allowed:
                raise ValueError(f"{name} has no effect with {kind}; leave it out")
        if self.catch_up == "none" and self.catch_up_window_sec is not None:
            raise ValueError("catch_up_window_sec has no effect with catch_up='none'; leave it out")
        if self.start_at is not None and self.end_at is not None and self.end_at < self.start_at:
            raise ValueError("end_at is before start_at")
        return self


_ONLY_WITH = {
    "timezone": ("cron",),
    "start_at": ("cron", "every_sec"),
    "end_at": ("cron", "every_sec"),
}


def time_text(moment: float) -> str:
    """Return a nominal time as it stands in the ids of tasks: ISO 8601 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def task_id_of(schedule_id: str, nominal: float) -> str:
    """Return the id of the task of a nominal time."""
    return f"{schedule_id}@{time_text(nominal)}"
