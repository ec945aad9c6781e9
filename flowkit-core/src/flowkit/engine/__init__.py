"""The rules of FlowKit, free of time, chance and the outside world.

:func:`advance` says what an event does to a task; :meth:`Transition.apply` makes it so. :func:`derive` and
:func:`pending_effects` restore from a stored task all that is not stored.
"""

from flowkit.engine._advance import advance
from flowkit.engine._draft import IllegalMove, Transition
from flowkit.engine._effects import (
    AskWorker,
    CallFunction,
    CheckCommand,
    DropLetter,
    Effect,
    EvaluateCondition,
    KeepLetter,
    SendCancel,
    SendCommand,
    TellReaders,
    pending_effects,
)
from flowkit.engine._events import (
    CancelRequested,
    CommandsLost,
    ConditionDelayed,
    ConditionEvaluated,
    Event,
    FunctionFailed,
    FunctionReturned,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TaskSubmitted,
    Woke,
)
from flowkit.engine._nodes import is_delayed
from flowkit.engine._readiness import BROKEN, contradiction, derive, edge_outcomes
from flowkit.engine._retries import retry_delay
from flowkit.engine._settings import EngineSettings
from flowkit.engine._stops import stop_cause
from flowkit.engine._timers import confirmed_until
from flowkit.engine._transitions import NODE_MOVES, NODE_REPORTS, TASK_MOVES
from flowkit.engine._vars import VarsOp

__all__ = [
    "BROKEN",
    "NODE_MOVES",
    "NODE_REPORTS",
    "TASK_MOVES",
    "AskWorker",
    "CallFunction",
    "CancelRequested",
    "CheckCommand",
    "CommandsLost",
    "ConditionDelayed",
    "ConditionEvaluated",
    "DropLetter",
    "Effect",
    "EngineSettings",
    "EvaluateCondition",
    "Event",
    "FunctionFailed",
    "FunctionReturned",
    "IllegalMove",
    "KeepLetter",
    "PauseRequested",
    "ResumeRequested",
    "RetryRequested",
    "SendCancel",
    "SendCommand",
    "TaskSubmitted",
    "TellReaders",
    "Transition",
    "VarsOp",
    "Woke",
    "advance",
    "confirmed_until",
    "contradiction",
    "derive",
    "edge_outcomes",
    "is_delayed",
    "pending_effects",
    "retry_delay",
    "stop_cause",
]
