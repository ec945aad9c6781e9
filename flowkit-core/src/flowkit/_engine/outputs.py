"""The output of a task: its evaluation when the task would finish, and its value or error."""

from flowkit._engine.effects import EvaluateOutput
from flowkit._engine.events import OutputDelayed, OutputEvaluated
from flowkit._engine.readiness import awaits_output
from flowkit._engine.settings import EngineSettings
from flowkit._engine.timers import LONGEST_PAUSE_SEC
from flowkit._engine.transition import Transition
from flowkit.task import TaskOutput, TaskStatus


def request_output(draft: Transition, settings: EngineSettings) -> None:
    """Request the evaluation of the output, and schedule a check: the coordinator that evaluates it
    may die.
    """
    draft.effects.append(EvaluateOutput())
    waited = 0.0 if draft.output is None else draft.now - (draft.output.since or draft.now)
    draft.wake(draft.now + min(max(waited, settings.resend_sec), LONGEST_PAUSE_SEC))


def output_evaluated(draft: Transition, event: OutputEvaluated, settings: EngineSettings) -> None:
    """Finish a task with the value of its output, or fail it with the error."""
    since = None if draft.output is None else draft.output.since
    if not awaits_output(draft) or event.since != since:
        draft.ignored = True
    elif event.error is not None:
        draft.outcome = TaskStatus.FAILED
        draft.error = f"output failed: {event.error}"
    else:
        draft.outcome = TaskStatus.FINISHED
        draft.output = TaskOutput(since, event.value)


def output_delayed(draft: Transition, event: OutputDelayed, settings: EngineSettings) -> None:
    """Record when the evaluation of the output was delayed."""
    if not awaits_output(draft) or draft.output is not None:
        draft.ignored = True
        return
    draft.output = TaskOutput(draft.now)
