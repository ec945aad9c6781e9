"""Tables of the moves of nodes and tasks, and of the reports that count.

The engine refuses a move that is not in these tables. The state charts of the documentation are
drawn from them.
"""

from flowkit._engine.events import (
    ArgumentsEvaluated,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    ChildrenDue,
    CommandWithdrawn,
    ConditionDelayed,
    ConditionEvaluated,
    DecisionMade,
    EndsRead,
    FunctionFailed,
    FunctionReturned,
    KeyBusy,
    KeyGranted,
    KeyNamed,
    KeyQueued,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NodeResolved,
    ResultCached,
    ResultWanted,
    RoundChecked,
    RunNowRequested,
    ShardsCollected,
)
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import Mark, TaskStatus


def _marks(names: str) -> frozenset[int]:
    """Return a set of marks, given their names."""
    return frozenset(getattr(Mark, name.upper()) for name in names.split())


def _statuses(names: str) -> frozenset[TaskStatus]:
    """Return a set of statuses, given their names."""
    return frozenset(TaskStatus(name) for name in names.split())


NODE_REPORTS: dict[type, frozenset[int]] = {
    NodeStarted: _marks("issued running cancelling"),
    NodeProgressed: _marks("issued running"),
    BatchStored: _marks("issued running"),
    BatchesRetried: _marks("issued running"),
    NodeHeldUp: _marks("issued running"),
    NodeSucceeded: _marks("ready asking issued running deferred cancelling"),
    FunctionReturned: _marks("ready asking running deferred cancelling"),
    NodeFailed: _marks("issued running cancelling"),
    FunctionFailed: _marks("running cancelling"),
    NodeStopped: _marks("issued running cancelling"),
    NodeReleased: _marks("issued running cancelling"),
    ChildrenCreated: _marks("running cancelling"),
    ChildFinished: _marks("running cancelling"),
    ChildFailed: _marks("running cancelling"),
    RoundChecked: _marks("running"),
    ConditionEvaluated: _marks("checking"),
    ConditionDelayed: _marks("checking"),
    KeyNamed: _marks("asking"),
    KeyGranted: _marks("asking deferred"),
    KeyQueued: _marks("asking"),
    KeyBusy: _marks("asking"),
    ResultCached: _marks("asking deferred"),
    ResultWanted: _marks("deferred"),
    CommandWithdrawn: _marks("issued running cancelling"),
    ArgumentsEvaluated: _marks("deferred"),
    DecisionMade: _marks("deferred"),
    RunNowRequested: _marks("deferred"),
    NodeResolved: _marks("waiting checking ready asking issued running mapping deferred"),
    MapOpened: _marks("mapping"),
    MapGrew: _marks("mapping"),
    MapFailed: _marks("mapping"),
    ChildrenDue: _marks("mapping"),
    MapCollected: _marks("mapping"),
    ShardsCollected: _marks("mapping"),
    EndsRead: _marks("mapping"),
}
"""Marks in which a report counts. A success counts until the node has ended: the first success of
any issued attempt wins. Other reports count only for the current attempt.
"""

NODE_MOVES: dict[int, frozenset[int]] = {
    Mark.HELD: _marks("waiting"),
    Mark.WAITING: _marks("checking ready finished failed skipped upstream_failed cancelled"),
    Mark.CHECKING: _marks("ready finished skipped upstream_failed failed cancelled"),
    Mark.READY: _marks(
        "asking issued running mapping deferred finished failed cancelled skipped upstream_failed"
    ),
    Mark.ASKING: _marks(
        "ready issued running deferred finished failed cancelled skipped upstream_failed"
    ),
    Mark.ISSUED: _marks("running cancelling ready deferred finished failed cancelled skipped"),
    Mark.RUNNING: _marks("cancelling ready finished deferred failed"),
    Mark.MAPPING: _marks("ready finished failed closing cancelled skipped"),
    Mark.CLOSING: _marks("finished failed cancelled skipped"),
    Mark.DEFERRED: _marks(
        "ready asking issued running deferred finished failed cancelled skipped upstream_failed"
    ),
    Mark.CANCELLING: _marks("waiting finished failed cancelled skipped"),
    Mark.FINISHED: _marks(""),
    Mark.FAILED: _marks(""),
    Mark.CANCELLED: _marks(""),
    Mark.SKIPPED: _marks(""),
    Mark.UPSTREAM_FAILED: _marks(""),
}
"""Marks that may follow a mark. An ended node does not move; only a retry resets it."""

TASK_MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: _statuses("running deferred paused cancelling finished failed cancelled"),
    TaskStatus.RUNNING: _statuses("deferred paused cancelling finished failed cancelled"),
    TaskStatus.DEFERRED: _statuses("queued running paused cancelling finished failed cancelled"),
    TaskStatus.PAUSED: _statuses("queued running deferred cancelling finished failed cancelled"),
    TaskStatus.CANCELLING: _statuses("cancelled failed"),
    TaskStatus.FINISHED: _statuses("queued running deferred"),
    TaskStatus.FAILED: _statuses("queued running deferred cancelling finished"),
    TaskStatus.CANCELLED: _statuses("queued running deferred cancelling finished failed"),
}
"""Statuses that may follow a status. A retry leads out of ``failed`` and ``cancelled``. The retry
of a dead letter also leads out of ``finished``.
"""
