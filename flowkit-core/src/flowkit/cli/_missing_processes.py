"""Notes about processes that a task needs and that do not run."""

from rich.console import Console

from flowkit._records.worker_sessions import sessions_of
from flowkit._tasks.missing_processes import missing_coordinator, missing_worker
from flowkit.client import TaskVerbs
from flowkit.graph._control_types import runs_on_worker
from flowkit.task import NodeStatus, TaskView


async def missing_processes(client: TaskVerbs, *views: TaskView) -> list[str]:
    """Return a sentence for each process that is missing for tasks that have not ended."""
    views = tuple(view for view in views if not view.status.terminal)
    if not views:
        return []
    sessions, now = await sessions_of(client.store), client.clock.now()
    nodes = [node for view in views for node in view.nodes.values() if not node.status.terminal]
    workers = sorted(
        {node.worker_id for node in nodes if node.status == NodeStatus.RUNNING and node.worker_id}
    )
    served = {role for session in sessions for role in session.roles}
    roles = {node.type for node in nodes if runs_on_worker(node.type)} - served
    sentences = [
        *(missing_worker(sessions, worker_id, now) for worker_id in workers),
        *(f"No live worker serves the role {role!r}." for role in sorted(roles)),
        missing_coordinator(sessions, now),
    ]
    return [sentence for sentence in sentences if sentence is not None]


def print_missing(out: Console, sentences: list[str]) -> None:
    """Print the sentences as notes."""
    for sentence in sentences:
        out.print(sentence, style="yellow", soft_wrap=True, markup=False)
