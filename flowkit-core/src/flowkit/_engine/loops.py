"""Rounds of loops: nodes that run child tasks one after the other.

The round is in the link to the child task. A loop runs during its rounds and is deferred between
them, so that a long pause takes no place among the nodes in flight.
"""

from dataclasses import replace

from flowkit._engine.effects import RunChild
from flowkit._engine.events import ChildFinished
from flowkit._engine.node_ends import end_cancelled, fail_attempt, finish_node
from flowkit._engine.settings import EngineSettings
from flowkit._engine.transition import Transition
from flowkit._engine.wait_records import start_wait
from flowkit._json.limits import LAST_MOMENT
from flowkit.graph import NodeSpec
from flowkit.graph._control_types import is_checked_first
from flowkit.task import ChildLink, Mark, Wait

LOOP = "loop"


def next_link(node: NodeSpec, link: ChildLink | None) -> ChildLink:
    """Return the link to the child task of a node when an attempt starts. ``link`` is that of the
    attempt before. An attempt that ended between two rounds is followed by the next round.
    """
    if link is None:
        link = ChildLink(iteration=0 if node.type == LOOP else None, due=False)
    return replace(link, overdue=False, due=link.due or not is_checked_first(node))


def round_finished(draft: Transition, event: ChildFinished, settings: EngineSettings) -> None:
    """Finish a loop with the result of its last round, or begin the next round after the pause."""
    index, following = event.index, event.following
    link = draft.record(index).child
    assert link is not None
    assert link.iteration is not None
    rounds = link.iteration + 1
    draft.edit(index).progress = {"rounds": rounds}
    draft.note(index, "progress", None, {"rounds": rounds})
    if following is None:
        finish_loop(draft, index, event.result, settings)
    elif draft.mark(index) == Mark.CANCELLING:
        end_cancelled(draft, index, settings)
    elif link.overdue:
        fail_attempt(draft, index, *overdue_error(draft, index), settings)
    elif rounds >= following.max_iterations:
        error = f"its condition asks for another round after {rounds}, which is max_iterations"
        fail_attempt(draft, index, "loop_limit", error, settings, permanent=True)
    else:
        pause = following.delay_sec
        due = not pause and not draft.paused
        draft.edit(index).child = ChildLink(iteration=rounds, due=due, previous=event.result)
        if pause:
            until = min(draft.now + pause, LAST_MOMENT)
            start_wait(draft, index, Wait("timer", until))
        elif due:
            _run_round(draft, index, settings)


def resume_loop(draft: Transition, index: int) -> None:
    """Let the next round begin that was due while the task was paused. A condition that is checked
    before each round is checked again.
    """
    link = draft.record(index).child
    if (
        draft.mark(index) == Mark.RUNNING
        and link is not None
        and not link.due
        and not is_checked_first(draft.task.spec.plan.nodes[index])
    ):
        draft.edit(index).child = replace(link, due=True)


def round_due(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Continue a loop whose pause has ended. Its condition is checked again."""
    record = draft.edit(index)
    record.wait = None
    draft.move(index, Mark.RUNNING, data={"attempt": record.attempt})
    if is_checked_first(draft.task.spec.plan.nodes[index]):
        _run_round(draft, index, settings)
    else:
        begin_round(draft, index, settings)


def begin_round(draft: Transition, index: int, settings: EngineSettings) -> None:
    """Have the child task of a round created."""
    record = draft.edit(index)
    assert record.child is not None
    record.child = replace(record.child, due=True)
    _run_round(draft, index, settings)


def _run_round(draft: Transition, index: int, settings: EngineSettings) -> None:
    record = draft.edit(index)
    record.heard_at = draft.now
    draft.effects.append(RunChild(index, record.attempt))
    draft.schedule(index, draft.now + settings.resend_sec)
    limit = draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    if limit is not None:
        # Its due time was dropped while it waited for a place.
        draft.schedule(index, record.issued_at + limit)


def finish_loop(draft: Transition, index: int, result: object, settings: EngineSettings) -> None:
    """Finish a loop with the result of its last round."""
    record = draft.edit(index)
    assert record.child is not None
    record.child = replace(record.child, previous=None)
    record.result = result
    finish_node(draft, index, settings)


def overdue_error(draft: Transition, index: int) -> tuple[str, str]:
    """Return the reason code and the error of an attempt that exceeded its time limit."""
    limit = draft.task.spec.plan.nodes[index].timeouts.start_to_close_sec
    return "start_to_close_timeout", f"it ran longer than {limit or 0:g} s"
