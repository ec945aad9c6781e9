"""What can happen to a task, besides what workers report (:mod:`flowkit.messages`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flowkit._engine.vars import VarsOp
from flowkit.messages import WorkerReport


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    """The task was created."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Begin no further node; what runs goes on."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """The end of a pause."""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Run an ended task again: from these nodes and all below them, or from those that did not
    succeed.

    The task must hold the records of the nodes that are reset.
    """

    nodes: tuple[int, ...] | None = None
    fill: bool = False
    """Retry dead letters: the chosen nodes keep what they stored and run for what is missing. Only
    this runs a finished task again.
    """


@dataclass(frozen=True, slots=True)
class ConditionEvaluated:
    """A node's ``when`` is true or false, or could not be evaluated (``error``)."""

    index: int
    value: bool = False
    error: str | None = None
    since: float | None = None
    """When the evaluation was delayed, if it was. One that was delayed in an earlier run of the
    node does not count.
    """


@dataclass(frozen=True, slots=True)
class ConditionDelayed:
    """Evaluating a node's ``when`` takes longer than a commit may wait. It is evaluated beside
    other work, and reported later.
    """

    index: int


@dataclass(frozen=True, slots=True)
class FunctionReturned:
    """A coordinator function came to a good end; what it does to the vars is applied with it."""

    index: int
    attempt: int
    token: str
    at: float
    result: Any = None
    ops: Sequence[VarsOp] = ()


@dataclass(frozen=True, slots=True)
class FunctionFailed:
    """A coordinator function failed."""

    index: int
    attempt: int
    token: str
    at: float
    reason_code: str
    permanent: bool
    error: str


@dataclass(frozen=True, slots=True)
class Woke:
    """Time has passed. ``silent`` tells for how many seconds each suspect worker has not been heard
    of.
    """

    silent: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandsLost:
    """Commands that will not reach a worker any more, or never were sent.

    Of each the node's index, the attempt, how often it was handed back before, and the place on the
    bus as far as it was known. A command that has another place by now was sent again meanwhile.
    """

    commands: tuple[tuple[int, int, int, tuple[int, int] | None], ...]


ClientEvent = TaskSubmitted | CancelRequested | PauseRequested | ResumeRequested | RetryRequested
Event = (
    ClientEvent
    | ConditionEvaluated
    | ConditionDelayed
    | FunctionReturned
    | FunctionFailed
    | Woke
    | CommandsLost
    | WorkerReport
)
