"""Submissions: checks of all inputs, and the new task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from flowkit._engine import Effect, EngineSettings, TaskSubmitted, first_marks
from flowkit._json.limits import (
    LONGEST_REASON,
    MAX_ID_CHARS,
    MAX_VALUE_LEVELS,
    LabelKey,
    LabelText,
    PositiveSeconds,
    Priority,
    addressable,
)
from flowkit._json.python_objects import NotWritable, plain_object
from flowkit._json.values import (
    TooLarge,
    clean,
    is_plain,
    is_unicode,
    kind_of,
    place,
    plain_copy,
)
from flowkit._records.record_parts import RecordWriter
from flowkit._records.task_records import encode_spec, header_of
from flowkit._tasks.cached_tasks import CachedTask, TaskUpdate
from flowkit._tasks.check_threads import TaskParams
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._user_code.containment import contained, error_text
from flowkit.errors import Fault, GraphError, TaskRefused
from flowkit.graph import Graph, Plan
from flowkit.graph._faults import refusal
from flowkit.protocols import Commit, TaskRecord
from flowkit.task import Task, TaskFlow, TaskSpec


def _object(labels: Any) -> Any:
    return {} if labels is None else dict(labels) if isinstance(labels, Mapping) else labels


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it contains characters that cannot be printed")
    return text


Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS), AfterValidator(_printable)]


class TaskOptions(BaseModel):
    """Options of a task beside its graph and its params."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task_id: Annotated[Name, AfterValidator(addressable)] | None
    idempotency_key: Name | None
    pipeline: Name | None
    labels: Annotated[dict[LabelKey, LabelText], BeforeValidator(_object)]
    priority: Priority
    deadline_sec: PositiveSeconds | None


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that is about to be stored."""

    cached: CachedTask
    record: TaskRecord
    commit: Commit
    """The first changes, which the record contains."""
    effects: Sequence[Effect]
    """Effects to carry out once the task is stored."""
    evaluates: bool
    """Conditions or maps are to be evaluated first, which the effects depend on."""
    certainly_new: bool
    """No task with this id or key can be stored, and the effects do not depend on conditions."""

    @property
    def task(self) -> Task:
        """The task after its first event."""
        return self.cached.task

    def is_stored_as(self, record: TaskRecord) -> bool:
        """Return whether this record is that of the submission, and has not changed. The secret of
        the task is in it.
        """
        return record.version == 1 and record.fault is None and record.spec == self.record.spec


async def checked(
    graph: Any, params: Mapping[str, Any] | None, *, checks: GraphChecks, **options: Any
) -> tuple[Graph, TaskParams, TaskOptions]:
    """Check a submission. Return its graph, its params as plain JSON, and its options, which are
    the fields of :class:`TaskOptions`.

    Raises:
        GraphError: the submission has faults; all of them are listed.
    """
    parsed, faults = await checks.parsed(graph)
    plain, wrong = TaskParams({}, {}), list[Fault]()
    said = None
    try:
        said = contained(TaskOptions, **options)
    except ValidationError as error:
        faults += [Fault(None, refusal(item)) for item in error.errors(include_url=False)]
    except Exception as error:
        faults.append(
            Fault(None, f"the options of the task cannot be read: {error_text(error, most=400)}")
        )
    if params is not None:
        given, wrong = plain_params(params, checks.limits.max_bytes)
        plain = TaskParams(given, given)
        faults += wrong
    if parsed is not None and not wrong:
        plain, texts = await checks.threads.params(parsed.document.params, plain.given)
        faults += [Fault(None, text) for text in texts]
    if parsed is None or said is None or faults:
        raise GraphError(faults)
    return parsed, plain, said


def plain_params(params: Any, max_bytes: int) -> tuple[dict[str, Any], list[Fault]]:
    """Return params as plain JSON, and their faults."""
    try:
        value = contained(_items, params)
    except NotWritable as error:
        return {}, [Fault(None, f"params {error}")]
    except Exception as error:
        return {}, [Fault(None, f"params cannot be read: {error_text(error, most=400)}")]
    if value is None:
        return {}, [Fault(None, f"params must be an object, not {kind_of(params)}")]
    try:
        if not is_plain(value, "params", max_bytes=max_bytes, max_levels=MAX_VALUE_LEVELS):
            value, problems = clean(
                value, "params", max_bytes=max_bytes, max_levels=MAX_VALUE_LEVELS
            )
            if problems:
                return {}, [
                    Fault(None, f"{place(('params', *path))} {reason}") for path, reason in problems
                ]
        return plain_copy(value, "params", max_bytes=max_bytes), []
    except TooLarge as error:
        return {}, [Fault(None, str(error))]


def _items(params: Any) -> Any:
    """Return the params as a dict; None if they are not a mapping."""
    return plain_object(params.items()) if isinstance(params, Mapping) else None


def task_spec(
    task_id: str,
    plan: Plan,
    params: TaskParams,
    flow: TaskFlow | None,
    *,
    pipeline: str | None = None,
    deadline_sec: float | None = None,
    **fields: Any,
) -> TaskSpec:
    """Return the definition of a new task. Its pipeline is that of its flow by default, and its
    deadline that of its graph.
    """
    return TaskSpec(
        task_id=task_id,
        plan=plan,
        params=params.whole,
        defaulted=params.defaulted,
        pipeline=flow.name if pipeline is None and flow is not None else pipeline,
        deadline_sec=plan.deadline_sec if deadline_sec is None else deadline_sec,
        flow=flow,
        **fields,
    )


def submission(
    spec: TaskSpec, graph: bytes, *, certainly_new: bool, settings: EngineSettings
) -> Submission:
    """Return a new task after its first event, and the record to store. ``graph`` is its JSON."""
    size = len(spec.plan.ids)
    task = Task(
        spec=spec,
        marks=first_marks(spec.plan),
        taken=[0] * size,
        empty=[0] * size,
        broken=[0] * size,
        open=spec.plan.main,
        parent_attempt=0 if spec.parent is None else spec.parent.attempt,
        parent_pauses=0 if spec.parent is None else spec.parent.pauses,
    )
    cached = CachedTask(task, RecordWriter(task, {}))
    update = TaskUpdate(cached, spec.created_at, settings)
    update.apply(TaskSubmitted())
    commit = cached.writer.commit(task, op_id="")
    record = TaskRecord(header_of(task), encode_spec(spec, graph), commit.put)
    evaluates = bool(update.evaluations)
    return Submission(cached, record, commit, update.effects, evaluates, certainly_new)


def checked_reason(reason: str) -> str:
    """Return the reason of a cancellation.

    Raises:
        TaskRefused: it is not a text of at most 1,000 characters.
    """
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON or not is_unicode(reason):
        raise TaskRefused(f"a reason is a text of at most {LONGEST_REASON:,} characters")
    return reason


def new_id(now: float, random: bytes) -> str:
    """Return a new task id: 12 hexadecimal digits of the time in milliseconds, so that ids sort by
    age, and 20 random ones.
    """
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}{random.hex()}"
