"""Built-in control types: nodes that run in the coordinator and take no worker.

:data:`CONTROL_TYPES` has the model and the checks of each type.
:mod:`flowkit.graph._control_checks` has the checks that all of them share.
:data:`flowkit._engine.waits.STARTS` has the function that starts a node of each type.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import to_json

from flowkit._json.limits import MAX_ID_CHARS, PositiveSeconds, Seconds, is_moment
from flowkit._json.values import short
from flowkit._text.redaction import shortened
from flowkit.graph._faults import refusal
from flowkit.graph._models import (
    COORDINATOR_FUNCTION,
    LAST_VERSION,
    ControlIO,
    FlowRef,
    Name,
    NodeSpec,
    RetryPolicy,
)
from flowkit.graph._params_schema import object_schema_faults, value_schema_faults
from flowkit.graph._templates import FIELDS, expressions_in, has_expressions

REJECT = "reject"
"""Choice by which ``on_reject`` decides about an approval."""
MAX_PROMPT_CHARS = 10_000
MAX_LABEL_CHARS = 40
Choice = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^\P{Cc}*$")]


def moment_of(text: str) -> float:
    """Return an ISO time in seconds since 1970.

    Raises:
        ValueError: it is no ISO time with a zone, or not in the years 1 to 9999.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None and is_moment(seconds := at.timestamp()):
            return seconds
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{short(text)} is not an ISO time with a zone, such as '2026-12-24T18:00:00+01:00'"
    )


def _is_moment(text: str) -> str:
    moment_of(text)
    return text


class SleepIO(ControlIO):
    """Arguments of ``sleep``: one of the two."""

    for_sec: Seconds | None = None
    """Seconds from the start of the node."""
    until: Annotated[str, AfterValidator(_is_moment)] | None = None
    """ISO time with a zone."""


def _sleep_faults(given: Mapping[str, Any]) -> Iterator[str]:
    if (given.get("for_sec") is None) == (given.get("until") is None):
        yield "io needs exactly one of for_sec and until for a node of type 'sleep'"


class WaitSignalIO(ControlIO):
    """Arguments of ``wait_signal``."""

    signal: Name
    """Name of the signal."""
    timeout_sec: PositiveSeconds | None = None
    on_timeout: Literal["fail", "skip"] = "fail"
    payload_schema: dict[str, Any] | None = Field(None, alias="schema")
    """JSON Schema of the payload."""


class ApprovalIO(ControlIO):
    """Arguments of ``approval``."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]
    """Question for a human."""
    choices: tuple[Choice, ...] = ("approve", REJECT)
    form: dict[str, Any] | None = None
    """JSON Schema of the values that come with a decision."""
    assignees: tuple[Name, ...] | None = None
    """Names of those who may decide; by default, anyone."""
    timeout_sec: PositiveSeconds | None = None
    on_timeout: Literal["fail", "skip"] = "fail"
    on_reject: Literal["fail", "continue"] = "fail"


def _approval_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from _timeout_faults(given)
    yield from _faults_in_lists(given)
    choices = given.get("choices")
    if "on_reject" in given and isinstance(choices, list) and REJECT not in choices:
        yield f"io.on_reject has no effect without the choice {REJECT!r}; remove on_reject"
    if given.get("form") is not None:
        yield from object_schema_faults(given["form"], "io.form")


def _faults_in_lists(given: Mapping[str, Any]) -> Iterator[str]:
    for field in ("choices", "assignees"):
        values = given.get(field)
        if isinstance(values, list) and not values:
            yield f"io.{field} is empty; name at least one, or remove it"
        elif isinstance(values, list) and len(set(values)) < len(values):
            yield f"io.{field} has a value twice; remove one"


def _no_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from ()


def _approval_label(given: Mapping[str, Any]) -> str:
    return f"approval: {shortened(' '.join(given['prompt'].split()), MAX_LABEL_CHARS)}"


def _signal_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from _timeout_faults(given)
    if given.get("schema") is not None:
        yield from value_schema_faults(given["schema"], "io.schema")


def _timeout_faults(given: Mapping[str, Any]) -> Iterator[str]:
    if "on_timeout" in given and given.get("timeout_sec") is None:
        yield "io.on_timeout has no effect without io.timeout_sec; add it or remove on_timeout"


def _signal_label(given: Mapping[str, Any]) -> str:
    return f"wait for signal {given['signal']}"


def _sleep_label(given: Mapping[str, Any]) -> str:
    for_sec, until = given.get("for_sec"), given.get("until")
    return f"sleep until {until}" if for_sec is None else f"sleep {for_sec} s"


MAX_NAMED = 3
"""Nodes of a graph that are named in a drawing."""


class ChildTaskIO(ControlIO):
    """Arguments of a node that runs child tasks."""

    graph: dict[str, Any] | None = None
    """Graph that the child tasks run."""
    flow: Name | None = None
    """Name of a registered flow that the child tasks run, in place of a graph."""
    version: Annotated[int, Field(ge=1, le=LAST_VERSION)] | None = None
    """Version of that flow; by default, the latest one when the root task was submitted."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Params of a child task."""


def _child_task_faults(given: Mapping[str, Any], node_type: str) -> Iterator[str]:
    if (given.get("flow") is None) == (given.get("graph") is None):
        yield f"io needs exactly one of graph and flow for a node of type {node_type!r}"
    if given.get("version") is not None and given.get("flow") is None:
        yield "io.version has no effect without io.flow; remove it"
    if "${" in (given.get("flow") or ""):
        yield "io.flow is the name of a flow, not an expression; use 'when' to choose a node"


def flow_of(node: NodeSpec) -> FlowRef | None:
    """Return the registered flow that the child tasks of a node run; None if there is none."""
    control = CONTROL_TYPES.get(node.type)
    given = arguments_of(node) if control and control.runs_child else {}
    name = given.get("flow")
    return None if name is None else FlowRef(name, given.get("version"))


def _work(given: Mapping[str, Any]) -> str:
    """Return what the child tasks run, for a drawing."""
    if given.get("flow") is not None:
        return str(FlowRef(given["flow"], given.get("version")))
    graph = given.get("graph") or {}
    ids = [str(node["node_id"]) for node in graph.get("nodes", [])]
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return f"{', '.join(ids[:MAX_NAMED])}{more}"


class SubflowIO(ChildTaskIO):
    """Arguments of ``subflow``."""


def _subflow_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from _child_task_faults(given, "subflow")


def _subflow_label(given: Mapping[str, Any]) -> str:
    return f"subflow of {_work(given)}"


DEFAULT_ITERATIONS = 100
MAX_ITERATIONS = 1_000_000
"""Most rounds that a loop may be allowed."""


class LoopIO(ChildTaskIO):
    """Arguments of ``loop``: exactly one of ``while`` and ``until``."""

    goes_on: str | None = Field(None, alias="while")
    """Condition of each round, evaluated before it."""
    ends: str | None = Field(None, alias="until")
    """Condition of the end, evaluated after each round."""
    max_iterations: Annotated[int, Field(ge=1, le=MAX_ITERATIONS)] = DEFAULT_ITERATIONS
    """Most rounds."""
    delay_sec: Seconds = 0.0
    """Pause between two rounds."""


def _loop_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from _child_task_faults(given, "loop")
    if (given.get("while") is None) == (given.get("until") is None):
        yield "io needs exactly one of while and until for a node of type 'loop'"


def _loop_label(given: Mapping[str, Any]) -> str:
    name = "until" if given.get("while") is None else "while"
    condition = shortened(" ".join(str(given.get(name)).split()), MAX_LABEL_CHARS)
    return f"loop of {_work(given)} {name} {condition}"


def is_checked_first(node: NodeSpec) -> bool:
    """Return whether a condition is checked before each round of a loop."""
    return (node.io.model_extra or {}).get("while") is not None


def most_rounds(node: NodeSpec) -> int | None:
    """Return the limit of the rounds of a loop; None if an expression gives it."""
    most = (node.io.model_extra or {}).get("max_iterations", DEFAULT_ITERATIONS)
    return most if isinstance(most, int) else None


@dataclass(frozen=True, slots=True)
class ControlType:
    """Control type: the model of its ``io`` and the checks of its nodes."""

    io: type[ControlIO]
    label: Callable[[Mapping[str, Any]], str]
    """Returns the text of a node in a drawing."""
    faults: Callable[[Mapping[str, Any]], Iterator[str]]
    """Yields the faults of ``io`` that its model cannot find. It gets the fields as written."""
    value_faults: Callable[[Mapping[str, Any]], Iterator[str]] = _no_faults
    """Yields those that the values of expressions can have, too."""
    literal: frozenset[str] = frozenset()
    """Fields of ``io`` whose strings are no expressions."""
    ends_after: str = ""
    """Field of ``io`` with the seconds after which the node ends in any case."""
    runs_child: bool = False
    """Nodes run child tasks, and do not wait by themselves."""
    bare: frozenset[str] = frozenset()
    """Fields of ``io`` that are expressions without ``${`` and ``}``."""
    names: frozenset[str] = frozenset()
    """Names that only the expressions in ``names_in`` can read."""
    names_in: frozenset[str] = frozenset()


CONTROL_TYPES: Mapping[str, ControlType] = {
    "sleep": ControlType(SleepIO, _sleep_label, _sleep_faults, ends_after="for_sec"),
    "wait_signal": ControlType(
        WaitSignalIO,
        _signal_label,
        _signal_faults,
        literal=frozenset({"on_timeout", "schema"}),
        ends_after="timeout_sec",
    ),
    "approval": ControlType(
        ApprovalIO,
        _approval_label,
        _approval_faults,
        _faults_in_lists,
        literal=frozenset({"form", "on_timeout", "on_reject"}),
        ends_after="timeout_sec",
    ),
    "subflow": ControlType(
        SubflowIO,
        _subflow_label,
        _subflow_faults,
        literal=frozenset({"graph", "flow", "version"}),
        runs_child=True,
    ),
    "loop": ControlType(
        LoopIO,
        _loop_label,
        _loop_faults,
        literal=frozenset({"graph", "flow", "version"}),
        runs_child=True,
        bare=frozenset({"while", "until"}),
        names=frozenset({"iteration", "previous"}),
        names_in=frozenset({"params", "while", "until", "delay_sec"}),
    ),
}


def role_fault(role: str) -> str | None:
    """Return what is wrong with the name of a role, or None."""
    if runs_on_worker(role):
        return None
    return (
        f"{role!r} is a built-in type of nodes, which no worker runs; choose another name for the"
        " role"
    )


def runs_on_worker(node_type: str) -> bool:
    """Return whether nodes of this type run on workers."""
    return node_type != COORDINATOR_FUNCTION and node_type not in CONTROL_TYPES


def with_control_defaults(nodes: Sequence[NodeSpec]) -> tuple[NodeSpec, ...]:
    """Return nodes with the retry policy that they follow: control nodes are not retried, unless
    their policy has ``max``.
    """
    return tuple(
        node.model_copy(update={"retry_policy": _policy(node.retry_policy)})
        if node.type in CONTROL_TYPES
        else node
        for node in nodes
    )


def _policy(policy: RetryPolicy) -> RetryPolicy:
    return policy if "max" in policy.model_fields_set else policy.model_copy(update={"max": 0})


# ---------------------------------------------------------------- arguments


def arguments_of(node: NodeSpec) -> dict[str, Any]:
    """Return the fields of a control node's ``io``, as they are written."""
    return dict(node.io.model_extra or {})


def evaluated_fields(node: NodeSpec) -> tuple[Mapping[str, Any], Collection[str]]:
    """Return the fields of a node's ``io``, and the names of those in which ``${ … }`` is
    evaluated.
    """
    control = CONTROL_TYPES.get(node.type)
    if control is None:
        return node.io.__dict__, FIELDS
    given = arguments_of(node)
    return given, given.keys() - control.literal - control.bare


def bare_expressions(node: NodeSpec) -> dict[str, str]:
    """Return the fields of a node's ``io`` that are expressions without ``${`` and ``}``."""
    control = CONTROL_TYPES.get(node.type)
    if control is None or not control.bare:
        return {}
    given = arguments_of(node)
    return {name: given[name] for name in sorted(control.bare) if isinstance(given.get(name), str)}


def is_computed(node: NodeSpec) -> bool:
    """Return whether the ``io`` of a node may contain expressions."""
    return has_expressions(node.io) or bool(bare_expressions(node))


def input_expressions(node: NodeSpec) -> Iterator[str]:
    """Yield the expressions in the ``io`` of a valid node."""
    yield from expressions_in(*evaluated_fields(node))
    yield from bare_expressions(node).values()


def read_arguments(
    node: NodeSpec, values: Mapping[str, Any], *, only: Collection[str] | None = None
) -> ControlIO:
    """Return the arguments of a control node, given the values of their expressions. ``only`` names
    the fields that are read; the others have their defaults.

    Raises:
        ValueError: a value is wrong. The value of an expression is wrong if it is null: the author
            of the graph wanted this argument, for example a list of those who may decide.
    """
    control = CONTROL_TYPES[node.type]
    written = arguments_of(node)
    given = {**written, **values}
    if only is not None:
        given = {name: given[name] for name in only if name in given}
    try:
        # As JSON: the models are strict, and a list is no tuple.
        arguments = control.io.model_validate_json(to_json(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(refusal(first, ("io", *first["loc"]))) from None
    for name in given:
        if given[name] is None and written[name] is not None:
            raise ValueError(f"io.{name} is null")
    for fault in control.value_faults(given):
        raise ValueError(fault)
    return arguments
