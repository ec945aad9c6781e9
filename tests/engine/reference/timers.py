"""Changes that time alone causes, and checks of nodes without reports."""

from flowkit.task import TaskStatus
from tests.engine.reference import child_tasks, waits
from tests.engine.reference.consequences import follow
from tests.engine.reference.ends import attempt_failed, end_stopped, stop_everything
from tests.engine.reference.maps import need
from tests.engine.reference.state import IN_FLIGHT, Node, State


def set_deadline(state: State) -> None:
    state.deadline_at = None if state.deadline_sec is None else state.now + state.deadline_sec


def time_passed(state: State, silent: dict[str, float]) -> None:
    if state.deadline_at is not None and state.now >= state.deadline_at and state.outcome is None:
        state.deadline_passed = True
        stop_everything(state, TaskStatus.FAILED)
        return
    for node in state.everyone():
        if state.runs_child_task(node) and node.state in IN_FLIGHT:
            # Its child task is stopped first.
            child_tasks.check_time(state, node)
        elif child_tasks.is_between_rounds(node) and state.runs_child_task(node):
            if node.state == "deferred":
                child_tasks.wait_on(state, node)
        elif waits.waits(state, node):
            waits.wait_on(state, node)
        elif node.state == "deferred" and state.now >= node.retry_at:
            node.state = "ready"
        elif node.state == "cancelling" and state.now >= node.cancel_by:
            end_stopped(state, node)
        elif node.state in ("issued", "running") and (reason := _overdue(state, node, silent)):
            attempt_failed(state, node, reason)
        follow(state)


def _overdue(state: State, node: Node, silent: dict[str, float]) -> str | None:
    limits = state.spec(node).timeouts

    def passed(since: float | None, limit: float | None) -> bool:
        return since is not None and limit is not None and state.now - since >= limit

    if node.state == "issued":
        late = passed(node.issued_at, limits.schedule_to_start_sec)
        return "schedule_to_start_timeout" if late else None
    if passed(node.began_at, limits.start_to_close_sec):
        return "start_to_close_timeout"
    if passed(node.heard_at, limits.heartbeat_sec):
        return "heartbeat_timeout"
    lease = state.settings.lease_ttl_sec * 2 ** (node.made - 1)
    patience = max(state.settings.worker_lost_sec, lease)
    return "worker_lost" if silent.get(node.worker or "", 0.0) >= patience else None


def look_after(state: State, node: Node, silent: dict[str, float]) -> str | None:
    """Return the expected effect for a node without reports for a while."""
    if state.is_map(node):
        return need(state, node)
    if state.runs_child_task(node):
        followed = child_tasks.is_followed(state, node) and not state.deadline_passed
        return "follow" if followed else None
    waited = state.now - node.issued_at
    if node.state not in ("issued", "running") or waited < state.settings.resend_sec:
        return None
    if node.state == "issued":
        return None if node.sent and waited < 30 else "check"
    if state.spec(node).type == "coordinator_fn":
        return "call"
    unheard = state.now - (node.heard_at or 0) >= state.settings.lease_ttl_sec
    suspected = silent.get(node.worker or "", 0) >= state.settings.worker_suspect_sec
    return "ask" if unheard and not suspected else None
