"""What should be done about a change: values, carried out by others after the commit."""

from dataclasses import dataclass

from flowkit._engine.stop_reasons import stop_cause
from flowkit.task import Mark, Task


@dataclass(slots=True)
class SendCommand:
    """Send the command of a node's present attempt."""

    index: int
    attempt: int


@dataclass(slots=True)
class CallFunction:
    """Call the coordinator function of a node."""

    index: int
    attempt: int


@dataclass(slots=True)
class EvaluateCondition:
    """Evaluate a node's ``when``: before the commit, or after it if the evaluation was delayed."""

    index: int


@dataclass(slots=True)
class SendCancel:
    """Tell the worker that has this attempt to stop."""

    index: int
    attempt: int
    token: str
    reason: str


@dataclass(slots=True)
class CheckCommand:
    """See whether the command of a node's present attempt is still to come to a worker."""

    index: int
    attempt: int


@dataclass(slots=True)
class AskWorker:
    """Ask the worker that began this attempt what became of it."""

    index: int
    attempt: int
    token: str
    worker_id: str


@dataclass(slots=True)
class TellReaders:
    """Tell those who read this node's artifacts while it runs that it has ended."""

    index: int
    generation: int


@dataclass(slots=True)
class KeepLetter:
    """Keep a dead letter of a node whose present attempt was its last."""

    index: int


@dataclass(slots=True)
class DropLetter:
    """Drop the dead letter of an attempt in an earlier run of the node."""

    index: int
    attempt: int


Letter = KeepLetter | DropLetter
"""What to do about dead letters before the change is committed, so that a crash loses none. Doing
it twice does no harm.
"""

Effect = (
    SendCommand
    | CallFunction
    | EvaluateCondition
    | SendCancel
    | CheckCommand
    | AskWorker
    | TellReaders
)


def pending_effects(task: Task, *, claimed: bool = True) -> list[Effect]:
    """What is yet to be done according to what is recorded.

    After a crash this restores every effect that was decided and may not have been carried out, but
    for hints that nothing hangs on: those to readers, who look by themselves now and then, and
    cancellations of attempts whose end no longer matters. Without ``claimed``, commands that a
    coordinator is about to send are left to it: should it have died, time brings them up.
    """
    effects: list[Effect] = []
    if task.terminal:
        return effects
    plan = task.spec.plan
    for index, record in task.records.items():
        mark = task.marks[index]
        if mark == Mark.ISSUED and not record.sent and (claimed or not record.claimed):
            effects.append(SendCommand(index, record.attempt))
        elif mark == Mark.RUNNING and plan.nodes[index].type == "coordinator_fn":
            effects.append(CallFunction(index, record.attempt))
        elif mark == Mark.CANCELLING:
            token = task.spec.token(index, record.attempt, record.handovers)
            code, cause = stop_cause(task, index, record.reason_code)
            effects.append(SendCancel(index, record.attempt, token, cause or code))
    start = task.marks.find(Mark.CHECKING)
    while start >= 0:
        effects.append(EvaluateCondition(start))
        start = task.marks.find(Mark.CHECKING, start + 1)
    return effects
