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
class SentCommand:
    """A command that was sent, and its place on the bus if that is known."""

    index: int
    attempt: int
    handovers: int
    """The number of times that the attempt was handed back before the command was issued."""
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CommandsSent:
    """These commands are on the bus."""

    commands: Sequence[SentCommand]


@dataclass(frozen=True, slots=True)
class CommandWaiting:
    """The bus confirmed that this command still waits for a worker."""

    command: SentCommand


@dataclass(frozen=True, slots=True)
class CommandsLost:
    """These commands will not reach a worker, or were never sent.

    A command that has another place by now was sent again in the meantime and is ignored.
    """

    commands: Sequence[SentCommand]


ClientEvent = TaskSubmitted | CancelRequested | PauseRequested | ResumeRequested | RetryRequested
DeferrableEvent = CommandsSent | CommandWaiting
"""Events that may be stored later, with the next commit of the task. If the process ends before, a
command is checked or sent once more than needed.
"""
Event = (
    ClientEvent
    | DeferrableEvent
    | ConditionEvaluated
    | ConditionDelayed
    | FunctionReturned
    | FunctionFailed
    | Woke
    | CommandsLost
    | WorkerReport
)
