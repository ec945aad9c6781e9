"""The rules, as tables: which status may follow which, on what.

The engine refuses to make a move that is not in here, and the state charts in the documentation are
drawn from here.
"""

from flowkit._engine.events import (
    ConditionDelayed,
    ConditionEvaluated,
    FunctionFailed,
    FunctionReturned,
)
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import Mark, TaskStatus

_ENDED = (TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED)

NODE_REPORTS: dict[type, frozenset[int]] = {
    NodeStarted: frozenset({Mark.ISSUED}),
    NodeProgressed: frozenset({Mark.ISSUED, Mark.RUNNING}),
    BatchStored: frozenset({Mark.ISSUED, Mark.RUNNING}),
    BatchesRetried: frozenset({Mark.ISSUED, Mark.RUNNING}),
    NodeSucceeded: frozenset(
        {Mark.READY, Mark.ISSUED, Mark.RUNNING, Mark.DEFERRED, Mark.CANCELLING}
    ),
    FunctionReturned: frozenset({Mark.READY, Mark.RUNNING, Mark.DEFERRED, Mark.CANCELLING}),
    NodeFailed: frozenset({Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING}),
    FunctionFailed: frozenset({Mark.RUNNING, Mark.CANCELLING}),
    NodeStopped: frozenset({Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING}),
    NodeReleased: frozenset({Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING}),
    ConditionEvaluated: frozenset({Mark.CHECKING}),
    ConditionDelayed: frozenset({Mark.CHECKING}),
}
"""Where a node may be for a report on it to count. Success counts wherever a node has begun and not
ended: the first success of any attempt that was issued wins. Everything else counts for the present
attempt alone.
"""

NODE_MOVES: dict[int, frozenset[int]] = {
    Mark.WAITING: frozenset(
        {Mark.CHECKING, Mark.READY, Mark.SKIPPED, Mark.UPSTREAM_FAILED, Mark.CANCELLED}
    ),
    Mark.CHECKING: frozenset(
        {Mark.READY, Mark.SKIPPED, Mark.UPSTREAM_FAILED, Mark.FAILED, Mark.CANCELLED}
    ),
    Mark.READY: frozenset(
        {
            Mark.ISSUED,
            Mark.RUNNING,
            Mark.FINISHED,
            Mark.CANCELLED,
            Mark.SKIPPED,
            Mark.UPSTREAM_FAILED,
        }
    ),
    Mark.ISSUED: frozenset({Mark.RUNNING, Mark.READY, Mark.DEFERRED, Mark.FAILED, Mark.CANCELLED}),
    Mark.RUNNING: frozenset(
        {Mark.CANCELLING, Mark.READY, Mark.FINISHED, Mark.DEFERRED, Mark.FAILED}
    ),
    Mark.DEFERRED: frozenset({Mark.READY, Mark.FINISHED, Mark.CANCELLED}),
    Mark.CANCELLING: frozenset({Mark.FINISHED, Mark.CANCELLED}),
    Mark.FINISHED: frozenset(),
    Mark.FAILED: frozenset(),
    Mark.CANCELLED: frozenset(),
    Mark.SKIPPED: frozenset(),
    Mark.UPSTREAM_FAILED: frozenset(),
}
"""Where a node may go from where it is. An ended node never moves again; only ``retry`` begins its
life anew.
"""

TASK_MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset(
        {TaskStatus.RUNNING, TaskStatus.DEFERRED, TaskStatus.PAUSED, *_ENDED}
    ),
    TaskStatus.RUNNING: frozenset(
        {TaskStatus.DEFERRED, TaskStatus.PAUSED, TaskStatus.CANCELLING, *_ENDED}
    ),
    TaskStatus.DEFERRED: frozenset(
        {TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.PAUSED, *_ENDED}
    ),
    TaskStatus.PAUSED: frozenset(
        {TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.DEFERRED, TaskStatus.CANCELLING, *_ENDED}
    ),
    TaskStatus.CANCELLING: frozenset({TaskStatus.CANCELLED, TaskStatus.FAILED}),
    TaskStatus.FINISHED: frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING}),
    TaskStatus.FAILED: frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.FINISHED}),
    TaskStatus.CANCELLED: frozenset(
        {TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.FINISHED, TaskStatus.FAILED}
    ),
}
"""Where a task may go from where it is. It leaves ``failed`` and ``cancelled`` by a retry,
``finished`` by that of a dead letter.
"""
