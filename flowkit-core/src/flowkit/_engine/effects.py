"""Effects of changes, as values. The coordinator carries them out after the commit."""

from dataclasses import dataclass

from flowkit._engine.stop_reasons import stop_cause
from flowkit.task import Mark, Task


@dataclass(slots=True)
class SendCommand:
    """Send the command of a node's current attempt."""

    index: int
    attempt: int


@dataclass(slots=True)
class CallFunction:
    """Call the coordinator function of a node."""

    index: int
    attempt: int


@dataclass(slots=True)
class EvaluateCondition:
    """Evaluate the condition of a node: before the commit, or after it if it was delayed."""

    index: int


@dataclass(slots=True)
class SendCancel:
    """Ask the worker of this attempt to stop."""

    index: int
    attempt: int
    token: str
    reason: str


@dataclass(slots=True)
class CheckCommand:
    """Check whether the command of a node's current attempt can still reach a worker."""

    index: int
    attempt: int


@dataclass(slots=True)
class AskWorker:
    """Ask the worker that started this attempt for its state."""

    index: int
    attempt: int
    token: str
    worker_id: str


@dataclass(slots=True)
class TellReaders:
    """Notify the readers of a node's artifacts that the node has ended."""

    index: int
    generation: int


@dataclass(slots=True)
class KeepLetter:
    """Store a dead letter of a node that failed in its last attempt."""

    index: int


@dataclass(slots=True)
class DropLetter:
    """Drop the dead letter of an attempt in an earlier run of the node."""

    index: int
    attempt: int


Letter = KeepLetter | DropLetter
"""Changes of dead letters. Repeating one is harmless."""

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
    """Return the effects of a stored task that may not have been carried out.

    After a crash this restores all effects except two kinds that no result depends on: notices to
    readers, which also poll, and cancellations of attempts whose end no longer matters. Without
    ``claimed``, commands that another coordinator is about to send are left out. If that
    coordinator has crashed, a timer finds them.
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
