"""Rules of tasks and nodes, without input, output, clocks or random numbers.

:func:`advance` returns the transition of a task for an event; :meth:`Transition.apply` makes the
change. :func:`derive` and :func:`pending_effects` restore what is not stored from what is.
"""

from flowkit._engine.advance import advance
from flowkit._engine.conditions import is_delayed
from flowkit._engine.events import (
    ArgumentsEvaluated,
    AskWorker,
    CallFunction,
    CancelRequested,
    CheckCommand,
    ClientEvent,
    CommandsLost,
    CommandsSent,
    CommandWaiting,
    ConditionDelayed,
    ConditionEvaluated,
    DecisionMade,
    DeferrableEvent,
    DropLetter,
    Effect,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    FunctionFailed,
    FunctionReturned,
    KeepLetter,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SendCancel,
    SendCommand,
    SentCommand,
    SignalReceived,
    TaskEnding,
    TaskSubmitted,
    TellReaders,
    Woke,
    pending_effects,
)
from flowkit._engine.node_starts import confirmed_until
from flowkit._engine.phases import end_status, error_of, first_marks
from flowkit._engine.readiness import BROKEN, awaits_output, contradiction, derive, edge_outcomes
from flowkit._engine.retries import retry_delay
from flowkit._engine.settings import EngineSettings
from flowkit._engine.signals import MAX_KEPT
from flowkit._engine.sources import sources_progress
from flowkit._engine.stop_reasons import stop_cause
from flowkit._engine.transition import IllegalMove, Transition
from flowkit._engine.transition_tables import NODE_MOVES, NODE_REPORTS, TASK_MOVES
from flowkit._engine.vars import VarsOp

__all__ = [
    "BROKEN",
    "MAX_KEPT",
    "NODE_MOVES",
    "NODE_REPORTS",
    "TASK_MOVES",
    "ArgumentsEvaluated",
    "AskWorker",
    "CallFunction",
    "CancelRequested",
    "CheckCommand",
    "ClientEvent",
    "CommandWaiting",
    "CommandsLost",
    "CommandsSent",
    "ConditionDelayed",
    "ConditionEvaluated",
    "DecisionMade",
    "DeferrableEvent",
    "DropLetter",
    "Effect",
    "EngineSettings",
    "EvaluateArguments",
    "EvaluateCondition",
    "EvaluateOutput",
    "Event",
    "FunctionFailed",
    "FunctionReturned",
    "IllegalMove",
    "KeepLetter",
    "OutputDelayed",
    "OutputEvaluated",
    "PauseRequested",
    "ResumeRequested",
    "RetryRequested",
    "SendCancel",
    "SendCommand",
    "SentCommand",
    "SignalReceived",
    "TaskEnding",
    "TaskSubmitted",
    "TellReaders",
    "Transition",
    "VarsOp",
    "Woke",
    "advance",
    "awaits_output",
    "confirmed_until",
    "contradiction",
    "derive",
    "edge_outcomes",
    "end_status",
    "error_of",
    "first_marks",
    "is_delayed",
    "pending_effects",
    "retry_delay",
    "sources_progress",
    "stop_cause",
]
