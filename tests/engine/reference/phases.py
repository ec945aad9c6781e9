"""Phases of a task, its output, and its status."""

from flowkit.task import TaskStatus
from tests.engine.reference.consequences import follow
from tests.engine.reference.ends import stop_everything
from tests.engine.reference.fan_in import failed_for_good, has_failed
from tests.engine.reference.starts import issue
from tests.engine.reference.state import ENDED, IN_FLIGHT, State
from tests.engine.reference.waits import begin_controls


def cancel(state: State, *, force: bool) -> None:
    """Stop the nodes of the main phase; with ``force``, also those of later phases."""
    if force:
        for index in state.later_nodes():
            if state.nodes[index].state == "held":
                state.nodes[index].state = "waiting"
        good = state.outcome in (None, TaskStatus.FINISHED)
        stop_everything(
            state, TaskStatus.CANCELLED if good or state.outcome is None else state.outcome
        )
        state.phase = "finally"
    elif state.outcome is None:
        stop_everything(state, TaskStatus.CANCELLED)


def begin_phases(state: State) -> None:
    """Begin the next phases while all nodes of the earlier ones have ended."""
    while not awaits_output(state) and all(node.state in (*ENDED, "held") for node in state.nodes):
        waiting = [
            phase
            for phase in ("undo", "finally")
            if any(state.nodes[index].state == "held" for index in state.later[phase])
        ]
        if not waiting:
            return
        state.phase = waiting[0]
        state.outcome = state.outcome or _main_outcome(state)
        state.paused = False
        for index in state.later[state.phase]:
            state.nodes[index].state = "waiting"
            if state.phase == "undo":
                bad = state.outcome is not TaskStatus.FINISHED
                due = bad and state.undone()[index] in state.finishes
                state.nodes[index].state = "ready" if due else "skipped"
        follow(state)
        begin_controls(state)
        issue(state)


def _main_outcome(state: State) -> TaskStatus:
    main = state.nodes[: len(state.nodes) - len(state.later_nodes())]
    failed = any(failed_for_good(state, node) for node in main)
    return TaskStatus.FAILED if failed else TaskStatus.FINISHED


def awaits_output(state: State) -> bool:
    """Return whether only the output is missing."""
    return (
        state.plan.output is not None
        and all(node.state in (*ENDED, "held") for node in state.nodes)
        and state.outcome is None
        and not has_failed(state)
    )


def see_status(state: State) -> None:
    states = {node.state for node in state.everyone()}
    final = [state.nodes[index] for index in state.later["finally"]]
    bad_end = any(failed_for_good(state, node) for node in final)
    if states <= set(ENDED) and not awaits_output(state):
        state.outcome = state.outcome or _main_outcome(state)
        good = state.outcome is TaskStatus.FINISHED
        state.status = TaskStatus.FAILED if good and bad_end else state.outcome
        state.paused = False
    elif state.outcome is not None and (bad_end or state.outcome is not TaskStatus.FINISHED):
        state.status = TaskStatus.CANCELLING
    elif state.paused:
        state.status = TaskStatus.PAUSED
    elif "deferred" in states and not states & set(IN_FLIGHT):
        state.status = TaskStatus.DEFERRED
    else:
        state.status = TaskStatus.RUNNING if state.begun else TaskStatus.QUEUED
