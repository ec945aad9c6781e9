"""Effects of the changes of tasks, as values. They are carried out after the commit."""

from dataclasses import dataclass
from typing import Any

from flowkit.task import ClaimKind, KeyClaim


@dataclass(slots=True)
class SendCommand:
    """Send the command of a node's current attempt, unless it has been handed back since."""

    index: int
    attempt: int
    handovers: int


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
class EvaluateOutput:
    """Evaluate the output of a task that would finish: before the commit, or after it if it was
    delayed.
    """


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Evaluate the expressions in the arguments of a control node, which has begun."""

    index: int
    attempt: int


@dataclass(slots=True)
class OpenMap:
    """Evaluate the items of a map and start its children: before the commit, or after it if that
    takes long.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class ReadArtifacts:
    """Read new artifacts of the parent of a map, which make children: before the commit, or after
    it (``later``) if there are many. Repeating this is harmless.
    """

    index: int
    attempt: int
    later: bool = False


@dataclass(slots=True)
class CollectMap:
    """Collect the results of the children of a map: before the commit, or after it if there are
    many.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class ReadEnds:
    """Read from the history which children of a map finished last, down from the change with the
    number ``before``. Their undos run next. Repeating this is harmless.
    """

    index: int
    """The undo of the map."""
    attempt: int
    before: int


@dataclass(slots=True)
class RunChild:
    """Bring the child task of a node in line with the node: create it, run it again, stop it, pause
    it, or report its end. Repeating this is harmless.
    """

    index: int
    attempt: int


@dataclass(slots=True)
class AskKey:
    """Ask for a place of the concurrency key of a node or task, for one of the rate of a node, or
    for the result for its cache key. Repeating this is harmless.
    """

    index: int
    number: int
    """Number of the claim."""
    kind: ClaimKind = "key"


@dataclass(frozen=True, slots=True)
class NameKey:
    """Evaluate the expressions of the concurrency key of a node or task, or of the rate or the
    cache of a node.
    """

    index: int
    number: int
    """Number of the claim."""
    kind: ClaimKind = "key"


@dataclass(slots=True)
class ReturnKey:
    """Give back the place of a claim that is over, or take it out of the queue. Repeating
    this is harmless.
    """

    index: int
    claim: KeyClaim
    """The claim before its end."""
    kind: ClaimKind = "key"
    begun: bool = True
    """Whether an attempt may have begun with the place."""
    result: Any = None
    stores: bool = False
    """The result is to be stored under the key of the cache."""


@dataclass(slots=True)
class WithdrawCommand:
    """Withdraw the command of an attempt, and report whether a worker has started it. Repeating
    this is harmless.
    """

    index: int
    attempt: int
    token: str


@dataclass(slots=True)
class TellParent:
    """Notify the parent's coordinator that the child task has ended."""


@dataclass(slots=True)
class SendCancel:
    """Ask the worker of this attempt to stop."""

    index: int
    attempt: int
    token: str
    reason: str


@dataclass(slots=True)
class EndSegments:
    """Ask the workers to begin no further nodes of the task without commands."""


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
class PublishChanges:
    """Publish the changes of the task that are not in the topic of changes, up to this number."""

    upto: int


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
    | EvaluateOutput
    | EvaluateArguments
    | OpenMap
    | ReadArtifacts
    | CollectMap
    | ReadEnds
    | RunChild
    | AskKey
    | NameKey
    | ReturnKey
    | WithdrawCommand
    | TellParent
    | SendCancel
    | EndSegments
    | CheckCommand
    | AskWorker
    | TellReaders
    | PublishChanges
)
