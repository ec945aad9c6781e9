"""What is submitted: checked whole, and made a task that is not stored yet."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from flowkit.bounds import PositiveSeconds, Priority, is_deeper
from flowkit.config import GraphLimits
from flowkit.engine import Effect, EngineSettings, TaskSubmitted, advance
from flowkit.errors import Fault, GraphError, TaskRefused
from flowkit.graph import Graph
from flowkit.graph.complaints import refusal
from flowkit.graph.limits import DEEPEST
from flowkit.graph.values import is_unicode
from flowkit.protocols import TaskRecord
from flowkit.storage import encode_spec, new_record
from flowkit.task import Task, TaskSpec


def _object(labels: Any) -> Any:
    return {} if labels is None else dict(labels) if isinstance(labels, Mapping) else labels


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("there are characters in it that cannot be printed")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Label = Annotated[str, Field(max_length=1_000)]


LONGEST_REASON = 1_000


class TaskOptions(BaseModel):
    """What is said of a task beside its graph and its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task_id: Name | None
    idempotency_key: Name | None
    pipeline: Name | None
    labels: Annotated[dict[Label, Label], BeforeValidator(_object)]
    priority: Priority
    deadline_sec: PositiveSeconds | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A task on its way into the store, and what is to be done first."""

    task: Task
    record: TaskRecord
    effects: list[Effect]
    certainly_new: bool
    """Nobody can have stored a task with this id or key before, and nothing stands between its effects and their being carried out."""


def checked(
    graph: Any, params: Mapping[str, Any] | None, *, limits: GraphLimits, functions: Collection[str], **options: Any
) -> tuple[Graph, dict[str, Any], TaskOptions]:
    """What is submitted, the parameters as plain JSON. ``options`` are the fields of :class:`TaskOptions`.

    Raises:
        GraphError: something is wrong with it; all of that is listed.
    """
    faults: list[Fault] = []
    parsed = None
    try:
        parsed = Graph.parse(graph, limits=limits, functions=functions)
    except GraphError as error:
        faults += error.faults
    plain: dict[str, Any] = {}
    said = None
    try:
        said = TaskOptions(**options)
    except ValidationError as error:
        faults += [Fault(None, refusal(item)) for item in error.errors(include_url=False)]
    if params is not None:
        try:
            plain = plain_params(params, limits.max_bytes)
        except (ValueError, TypeError) as error:
            faults.append(Fault(None, f"params: {error}"))
    if parsed is None or said is None or faults:
        raise GraphError(faults)
    return parsed, plain, said


def plain_params(params: Mapping[str, Any], most_bytes: int) -> dict[str, Any]:
    """Parameters as plain JSON.

    Raises:
        TypeError, ValueError: they are none, more than so many bytes, or too deep.
    """
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise TypeError("an object is expected")
    if not params:
        return {}
    try:
        data = to_json(params, inf_nan_mode="constants")
        plain: dict[str, Any] = from_json(data, allow_inf_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if len(data) > most_bytes:
        raise ValueError(f"{len(data)} bytes are above the limit of {most_bytes}")
    if is_deeper(data, DEEPEST):
        raise ValueError(f"values stand in each other more than {DEEPEST} levels deep; make them flatter")
    return plain


def submission(spec: TaskSpec, graph: Graph, *, certainly_new: bool, settings: EngineSettings) -> Submission:
    """The task, with what its first event brought."""
    size = len(spec.plan.ids)
    task = Task(spec=spec, marks=bytearray(b".") * size, taken=[0] * size, empty=[0] * size, broken=[0] * size, open=size)
    step = advance(task, TaskSubmitted(), now=spec.created_at, settings=settings)
    step.apply()
    return Submission(task, new_record(task, encode_spec(spec, graph.source), step.log), step.effects, certainly_new)


def checked_reason(reason: str) -> str:
    """Why a task is to be stopped, as somebody says it.

    Raises:
        TaskRefused: it is not a text of at most 1,000 characters.
    """
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON or not is_unicode(reason):
        raise TaskRefused(f"a reason is a text of at most {LONGEST_REASON:,} characters")
    return reason


def new_id(now: float, random: bytes) -> str:
    """A new task id: 12 hexadecimal digits of the time in milliseconds, so that ids sort by age, and 20 at random."""
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}{random.hex()}"
