"""The definition of a trigger."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from flowkit._json.limits import PositiveSeconds, Priority
from flowkit._schedules._schedule import Labels, Name, Pipeline, ScheduleId, printable
from flowkit.graph._models import LAST_VERSION

TASK_SOURCE = "task:"
"""Beginning of the sources that are the ends of tasks."""


def _with_pipeline(source: str) -> str:
    if source == TASK_SOURCE:
        raise ValueError("it names no pipeline; write task:PIPELINE")
    return source


Source = Annotated[
    str,
    Field(min_length=1, max_length=1_000),
    AfterValidator(printable),
    AfterValidator(_with_pipeline),
]


class Trigger(BaseModel):
    """A trigger: it makes a task of a graph or flow for each event of its source.

    Give exactly one of ``graph`` and ``flow``. Each event makes at most one task, also if the
    source delivers it several times. A wrong field is a :class:`ValueError` that names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: ScheduleId
    source: Source
    """Address of the events: ``task:PIPELINE`` for the ends of all tasks of that pipeline, or one
    that a plugin knows, such as ``kafka://host:9092/topic``.
    """
    graph: Any = None
    """Graph of the tasks: a dict, a :class:`~flowkit.Graph` or a flow in Python."""
    flow: Name | None = None
    """Name of a registered flow, instead of a graph."""
    version: Annotated[int, Field(ge=1, le=LAST_VERSION)] | None = None
    """Version of the flow. Without it, each task runs the version that is the latest then."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Params of the tasks. ``${ … }`` is an expression, which sees the ``event``."""
    when: str | None = None
    """Condition, an expression that sees the ``event``. If it is false, no task is made."""
    labels: Labels = Field(default_factory=dict)
    priority: Priority = 0
    deadline_sec: PositiveSeconds | None = None
    """Time limit of each task. The default is the graph's own."""
    pipeline: Pipeline | None = None
    """Pipeline of the tasks. The default is the name of the flow."""

    def __init__(self, id: str | None = None, /, **fields: Any) -> None:  # noqa: A002
        super().__init__(**({} if id is None else {"id": id}), **fields)

    @model_validator(mode="after")
    def _check_fields(self) -> "Trigger":
        if (self.graph is None) == (self.flow is None):
            raise ValueError("give exactly one of graph and flow")
        if self.version is not None and self.flow is None:
            raise ValueError("version has no effect without flow; leave it out")
        return self


def pipeline_of(source: str) -> str | None:
    """Return the pipeline whose ends are the events of a source; None for another source."""
    return source.removeprefix(TASK_SOURCE) if source.startswith(TASK_SOURCE) else None
